"""Darker lamps that shine slantwise from behind the table, so shadows fall towards the robot.

SIMPLER's main light goes from 2.2 to 0.8 and from straight down to (1, 1, -1), its fill lights from 1.4 to 0.8 together
(`grasp_single_in_scene.py`).
"""

import mujoco
import numpy as np

from envs.variant import VARIANT_AGGREGATION, Variant
from envs.variants._edits import scale_light

_DIRECTION = np.array([1.0, 1.0, -1.0])
_DISTANCE = 2.0  # [m] from the middle of the scene along each axis


def _edit(spec: mujoco.MjSpec) -> None:
    scale_light(spec, lamps=0.8 / 2.2, fill=0.8 / 1.4)
    for light in spec.lights:
        light.dir = _DIRECTION
        light.pos = np.array(spec.stat.center) - _DISTANCE * _DIRECTION


VARIANT = Variant("lighting_darker", settings=(VARIANT_AGGREGATION,), edit=_edit)
