"""Other walls, floors and table tops: SIMPLER swaps whole scanned rooms, here their surfaces change."""

from functools import partial
from typing import TYPE_CHECKING

import mujoco

from envs.textures import Image
from envs.variant import VARIANT_AGGREGATION, Variant
from envs.variants._edits import repaint

if TYPE_CHECKING:
    from envs.task import Task


def background(name: str, wall: Image, floor: Image) -> Variant:
    """The variant with this wall and this floor, (height, width, 3) a metre or so of each."""
    return Variant(name, settings=(VARIANT_AGGREGATION,), edit=partial(_redecorate, wall=wall, floor=floor))


def table_texture(name: str, top: Image, repeat: tuple[float, float]) -> Variant:
    """The variant with this table top; SIMPLER does not change the cabinet's."""
    edit = partial(repaint, name="table", image=top, repeat=repeat)
    return Variant(name, settings=(VARIANT_AGGREGATION,), edit=edit, belongs_to=_has_table)


def _redecorate(spec: mujoco.MjSpec, wall: Image, floor: Image) -> None:
    repaint(spec, "wall", wall, repeat=(8, 1.35))
    repaint(spec, "floor", floor, repeat=(8, 8))


def _has_table(task: "Task") -> bool:
    return task.scene.name != "google_cabinet"
