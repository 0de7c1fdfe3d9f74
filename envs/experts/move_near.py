"""Expert for moving one object near another: take hold, carry, put down, let go, retreat, and again after a loss."""

from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.experts._grasping import Grasping, around
from envs.experts._motion import CLOSED, OPEN
from envs.geometry import Vector
from envs.tasks._move_near import MoveNear, half_diagonal

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

_BESIDE = 0.072  # [m] between the circles around the two objects: less than 0.10, and the fingers can open
_APART = 0.015  # [m] that any other object is further away than the target
_CARRIED = 0.05  # [m] above where it stood
_PUT_DOWN = 0.002  # [m] above where it stood
_CLEARANCE = 0.13  # [m] of the carried object's centre from that of others
_OVER = 0.012  # [m] from the place in the plane, from where on it goes straight down
_REACHABLE = ((0.42, -0.28), (0.75, 0.28))  # [m] (x, y) lowest and highest, in the base frame
_RETREAT = 0.05  # [m] of the tool above where it let go
_DONE_STEPS = 3
_DETOURS = np.deg2rad([0, *(sign * angle for angle in range(15, 181, 15) for sign in (1, -1))])


class Phase(Enum):
    REACH = auto()
    CARRY = auto()
    RELEASE = auto()
    RETREAT = auto()


class MoveNearExpert:
    """Puts what is asked for down beside the target, on the side it comes from.

    Args:
        env: the environment whose episodes to solve.

    Attributes:
        done: solved, released and out of the way.
    """

    def __init__(self, env: "ManipulationEnv") -> None:
        self._env = env
        self.done = False

    def reset(self) -> None:
        assert isinstance(self._env.goal, MoveNear)
        self._goal = self._env.goal
        self._grasping = Grasping(self._env, self._goal.source)
        self._tool = self._grasping.tool
        self._stood = self._where(self._goal.source)[2]
        self.phase = Phase.REACH
        self._done_steps = 0
        self.done = False

    def action(self) -> NDArray[np.float32]:
        self._grasping.look()
        self._advance()
        match self.phase:
            case Phase.REACH:
                return self._grasping.action()
            case Phase.CARRY:
                return self._carry()
            case Phase.RELEASE | Phase.RETREAT:
                return self._leave()

    def _advance(self) -> None:
        world, success = self._env.world, self._env.success
        fingers = world.finger_contacts(self._goal.source)
        match self.phase:
            case Phase.REACH if success.strict:
                self.phase = Phase.RETREAT
            case Phase.REACH if self._grasping.held:
                self.phase = Phase.CARRY
            case Phase.CARRY if fingers == 0:
                self.phase = Phase.REACH
            case Phase.CARRY if self._is_down():
                self.phase = Phase.RELEASE
            case Phase.RELEASE if fingers == 0 and world.gripper_opening() > 0.8:
                self.phase = Phase.RETREAT
            case Phase.RETREAT if self._is_clear() and not success.official:
                self.phase = Phase.REACH
        solved = self.phase is Phase.RETREAT and self._is_clear() and success.strict
        self._done_steps = self._done_steps + 1 if solved else 0
        self.done = self._done_steps >= _DONE_STEPS

    def _carry(self) -> NDArray[np.float32]:
        """Up, across, and down."""
        tool, source = self._tool, self._where(self._goal.source)
        across = around(source[:2], self._spot(), self._others(), _CLEARANCE) - source[:2]
        away = max(float(np.linalg.norm(across)) - _OVER, 0.0)
        up = self._stood + _PUT_DOWN + min(3.0 * away, _CARRIED) - source[2]
        way = np.array([*across, up]) if up < _CARRIED / 2 else np.array([0.0, 0.0, up])
        return self._grasping.go(tool.position + way, self._grasping.pose()[1], CLOSED)

    def _leave(self) -> NDArray[np.float32]:
        """Open in the middle over the object, then up."""
        middle, _ = self._grasping.pose()
        height = middle[2] + _RETREAT if self.phase is Phase.RETREAT else self._tool.position[2]
        return self._grasping.go(np.array([*middle[:2], height]), self._tool.yaw, OPEN)

    def _is_down(self) -> bool:
        source = self._where(self._goal.source)
        over = float(np.linalg.norm(self._spot() - source[:2])) < _OVER
        down = source[2] < self._stood + 2 * _PUT_DOWN or bool(self._env.world.touched_bodies(self._goal.source))
        return over and down

    def _is_clear(self) -> bool:
        return float(np.linalg.norm(self._tool.position - self._grasping.pose()[0])) > 0.8 * _RETREAT

    def _spot(self) -> Vector:
        """(2,) [m] beside the target, on the source's side unless something else is too near there."""
        world, pair = self._env.world, (self._goal.source, self._goal.target)
        source, target = (self._where(name)[:2] for name in pair)
        others = self._others()
        beside = sum(half_diagonal(world, name) for name in pair) + _BESIDE
        towards = float(np.arctan2(*(source - target)[::-1]))
        spots = target + beside * np.stack([np.cos(towards + _DETOURS), np.sin(towards + _DETOURS)], axis=1)
        for spot in spots:
            apart = all(np.linalg.norm(spot - other) > beside + _APART for other in others)
            if apart and (spot > _REACHABLE[0]).all() and (spot < _REACHABLE[1]).all():
                return spot
        return spots[0]

    def _others(self) -> list[Vector]:
        """(2,) [m] of what is neither source nor target."""
        pair = (self._goal.source, self._goal.target)
        return [self._where(name)[:2] for name in self._env.world.objects if name not in pair]

    def _where(self, name: str) -> Vector:
        return self._env.world.in_base(self._env.world.origin(name))


EXPERT = MoveNearExpert
