"""A cabinet with a veined stone top, whose drawers are of grey wood inside (SIMPLER's `mk_station3`)."""

import mujoco

from envs.scenes._surfaces import stone
from envs.variant import VARIANT_AGGREGATION, Variant
from envs.variants._cabinets import darken_drawers, has_cabinet
from envs.variants._edits import repaint


def _edit(spec: mujoco.MjSpec) -> None:
    darken_drawers(spec)
    repaint(spec, "table", stone((150, 152, 156), contrast=0.12, grain=0.08), repeat=(1, 1))


VARIANT = Variant("cabinet_3", settings=(VARIANT_AGGREGATION,), edit=_edit, belongs_to=has_cabinet)
