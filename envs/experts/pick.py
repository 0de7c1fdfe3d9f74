"""Expert for picking: reach, close, lift, and again after a loss."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.experts._grasping import Grasping
from envs.experts._motion import CLOSED
from envs.tasks._pick import Pick

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

_STEADY_STEPS = 3


class PickExpert:
    """Lifts what is asked for and holds it up.

    Args:
        env: the environment whose episodes to solve.
        grasping: takes hold of the object.

    Attributes:
        done: held up for a while.
    """

    def __init__(self, env: "ManipulationEnv", grasping: type[Grasping] = Grasping) -> None:
        self._env, self._take_hold = env, grasping
        self.done = False

    def reset(self) -> None:
        assert isinstance(self._env.goal, Pick)
        self._grasping = self._take_hold(self._env, self._env.goal.source)
        self._steady_steps = 0
        self.done = False

    def action(self) -> NDArray[np.float32]:
        self._grasping.look()
        self._steady_steps = self._steady_steps + 1 if self._env.success.strict else 0
        self.done = self._steady_steps >= _STEADY_STEPS
        return self._lift() if self._grasping.held else self._grasping.action()

    def _lift(self) -> NDArray[np.float32]:
        """Straight up, until the object is where it is to be held."""
        points, tool = self._env.judge.keypoints(), self._grasping.tool
        up = np.array([0.0, 0.0, points.target[2] - points.source[2]])
        return self._grasping.go(tool.position + up, tool.yaw, CLOSED)


EXPERT = PickExpert
