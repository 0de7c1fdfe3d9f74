"""Expert for put-on tasks: reach, close, carry, release, retreat, and again after a loss.

Every decision looks at the *measured* state, never at the clock or at the accumulated target: one picture has one
correct action, so a policy that sees only pictures can imitate it, also from states that noise or mistakes led to.
"""

from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.experts._motion import CLOSED, OPEN, Tool, funnel
from envs.geometry import Vector
from envs.tasks._put_on import Place, PutOn

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

_HOVER = 0.10  # highest approach above a grasp [m]
_CARRY = 0.06  # height above its place, or above the rim around that, at which an object is carried [m]
_FREE = 0.03  # height above its place, or above the rim around that, at which an object moves sideways freely [m]
_CENTRED = 0.5  # of the target's half width: how near to its middle an object is let go
_CLEARANCE = 0.003  # [m] between the object and what it is put on when letting go
_RETREAT_HEIGHT = 0.12  # [m] of the TCP above the surface
_OUT_OF_THE_WAY = 0.08  # [m] the same
_SETTLED_STEPS = 3


class Phase(Enum):
    REACH = auto()
    CLOSE = auto()
    CARRY = auto()
    RELEASE = auto()
    RETREAT = auto()


class PutOnExpert:
    """Solves put-on tasks with a parallel gripper from above.

    Args:
        env: the environment whose episodes to solve.

    Attributes:
        done: solved, released and out of the way.
    """

    def __init__(self, env: "ManipulationEnv") -> None:
        self._env = env
        self._tool = Tool(env)

    def reset(self) -> None:
        self._world = self._env.world
        goal = self._env.goal
        assert isinstance(goal, PutOn)
        self._source, self._target = goal.source, goal.target
        self._rest = float(self._source_position()[2]) - self._tool.surface
        self.done = False
        self._phase = Phase.REACH
        self._holding_steps = 0
        self._clear_steps = 0

    def action(self) -> NDArray[np.float32]:
        self._advance()
        position, yaw, gripper = self._wanted()
        return self._tool.towards(position, self._tool.pointing_down(yaw), gripper)

    def _advance(self) -> None:
        """Choose the phase from what is measured now."""
        fingers = self._world.finger_contacts(self._source.name)
        self._holding_steps = self._holding_steps + 1 if fingers == 2 else 0
        match self._phase:
            case Phase.REACH if self._env.success.strict:
                self._phase = Phase.RETREAT
            case Phase.REACH if self._tool.gap(*self._tool.grasp(self._source)).within(0.010, 0.007, 0.15):
                self._phase = Phase.CLOSE
            case Phase.CLOSE if self._holding_steps >= 2:
                self._phase = Phase.CARRY
            case Phase.CLOSE if self._missed():
                self._phase = Phase.REACH
            case Phase.CARRY if fingers == 0:
                self._phase = Phase.REACH
            case Phase.CARRY if self._arrived():
                self._phase = Phase.RELEASE
            case Phase.RELEASE if fingers == 0:
                self._phase = Phase.RETREAT
            case Phase.RETREAT if self._clear() and self._failed():
                self._phase = Phase.REACH
        solved = self._phase is Phase.RETREAT and self._clear() and self._env.success.strict
        self._clear_steps = self._clear_steps + 1 if solved else 0
        self.done = self._clear_steps >= _SETTLED_STEPS

    def _wanted(self) -> tuple[Vector, float, float]:
        """Wanted tool position [m] and yaw [rad] in the base frame, and gripper command."""
        tool = self._tool
        match self._phase:
            case Phase.REACH:
                grasp, yaw = tool.grasp(self._source)
                above = funnel(tool.gap(grasp, yaw), _HOVER)
                return grasp + np.array([0.0, 0.0, above]), yaw, OPEN
            case Phase.CLOSE:
                return *tool.grasp(self._source), CLOSED
            case Phase.CARRY:
                return tool.position + self._carry(), tool.yaw, CLOSED
            case Phase.RELEASE:
                return tool.position, tool.yaw, OPEN
            case Phase.RETREAT:
                return np.array([*tool.position[:2], tool.surface + _RETREAT_HEIGHT]), tool.yaw, OPEN

    def _source_position(self) -> Vector:
        return self._world.in_base(self._world.position(self._source.name))

    def _gap(self) -> Vector:
        """(3,) [m] from the source's centre to where it is to be let go, in the base frame."""
        middle = self._world.in_base(self._world.position(self._target.name))
        height = self._target.size[2] / 2 + self._rest + _CLEARANCE
        return middle + np.array([0.0, 0.0, height]) - self._source_position()

    def _carry(self) -> Vector:
        """(3,) [m] motion that brings the held object over its place: up, across, and down, each as the last allows."""
        gap = self._gap()
        distance = float(np.linalg.norm(gap[:2]))
        rim = self._target.rim if isinstance(self._target, Place) else 0.0
        climb = gap[2] + min(3.0 * max(distance - self._tolerance(), 0.0), rim + _CARRY)
        freedom = np.clip((-gap[2] - rim) / _FREE, 0.0, 1.0) if distance > 2 * self._tolerance() else 1.0
        return np.array([*(freedom * gap[:2]), climb])

    def _tolerance(self) -> float:
        """[m] how near to the middle of the target an object is let go."""
        return _CENTRED * min(self._target.size[:2]) / 2

    def _arrived(self) -> bool:
        gap = self._gap()
        low = gap[2] > -0.004 or self._world.touching(self._source.name, self._target.name)
        return bool(low and np.linalg.norm(gap[:2]) < self._tolerance())

    def _missed(self) -> bool:
        gap = self._tool.gap(*self._tool.grasp(self._source))
        return gap.plane > 0.03 or (self._world.gripper_opening() < 0.1 and self._holding_steps == 0)

    def _clear(self) -> bool:
        return float(self._tool.position[2]) - self._tool.surface > _OUT_OF_THE_WAY

    def _failed(self) -> bool:
        """Whether the object lies somewhere else than it should."""
        return bool(self._env.success.stats["at_rest"]) and not self._env.success.strict


EXPERT = PutOnExpert
