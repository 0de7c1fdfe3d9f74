"""Expert for picking an object that rides on a conveyor belt."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.experts._grasping import Grasping
from envs.experts._motion import lead
from envs.experts.pick import PickExpert
from envs.geometry import Vector

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

_AHEAD = 0.4  # [s] that the hand is behind what it follows


class MovingGrasping(Grasping):
    """Aims ahead of the object as long as the belt carries it."""

    def go(self, position: Vector, yaw: float, gripper: float) -> NDArray[np.float32]:
        ahead = np.zeros(3) if self.held else lead(self._env, self._name, _AHEAD)
        return super().go(position + ahead, yaw, gripper)


class ConveyorPickExpert(PickExpert):
    """Lifts what rides on the belt and holds it up."""

    def __init__(self, env: "ManipulationEnv") -> None:
        super().__init__(env, MovingGrasping)


EXPERT = ConveyorPickExpert
