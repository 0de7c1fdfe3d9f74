"""The ways objects lie, before they are turned by a yaw (ManiSkill2_real2sim `grasp_single_in_scene.py`).

SIMPLER's cans have their axis along y, ours along z, so these are SIMPLER's rotations times a quarter turn about x.
"""

import numpy as np

from envs.geometry import UPRIGHT, Quaternion

_HALF = float(np.sqrt(0.5))

STANDING: tuple[tuple[str, Quaternion], ...] = (
    ("upright", UPRIGHT),
    ("horizontal", (0.0, 0.0, -_HALF, _HALF)),  # `lr_switch`: the axis along the world's y, left to right in the image
    ("vertical", (0.5, -0.5, -0.5, 0.5)),  # `laid_vertically`: the axis along the world's x, away from the camera
)
FLAT: tuple[tuple[str, Quaternion], ...] = (
    ("upright", UPRIGHT),
    ("horizontal", (0.0, 0.0, 0.0, 1.0)),
    ("vertical", (_HALF, 0.0, 0.0, _HALF)),
)
ON_EDGE: tuple[tuple[str, Quaternion], ...] = (("upright", (_HALF, _HALF, 0.0, 0.0)), *FLAT[1:])
