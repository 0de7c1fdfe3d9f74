"""What a gymnasium environment says of its observations and actions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

_FURTHEST = np.array([2.0, 2.0, 2.0, np.pi, np.pi, np.pi, 1.2], np.float32)  # beyond any reachable state
_LARGEST = np.array([1.0, 1.0, 1.0, np.pi / 2, np.pi / 2, np.pi / 2, 1.0], np.float32)


def observation_space(cameras: Mapping[str, tuple[int, int]]) -> Dict:
    """Images of these cameras, each (height, width) pixels, and the state of the tool and the gripper."""
    images: dict[str, Space[Any]] = {name: Box(0, 255, (*size, 3), np.uint8) for name, size in cameras.items()}
    return Dict({"images": Dict(images), "state": Box(-_FURTHEST, _FURTHEST)})


def action_space() -> Space[NDArray[np.float32]]:
    """Motion [m], rotation vector [rad] and gripper."""
    return Box(-_LARGEST, _LARGEST)
