"""Brighter lamps.

SIMPLER's main light goes from 2.2 to 3.6 and its fill lights from 0.7 to 1.3, ambient light stays
(`grasp_single_in_scene.py`).
"""

from functools import partial

from envs.variant import VARIANT_AGGREGATION, Variant
from envs.variants._edits import scale_light

_EDIT = partial(scale_light, lamps=3.6 / 2.2, fill=1.3 / 0.7)

VARIANT = Variant("lighting_brighter", settings=(VARIANT_AGGREGATION,), edit=_EDIT)
