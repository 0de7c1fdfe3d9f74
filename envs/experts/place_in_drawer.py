"""Expert for drawers that something is to be put into: open, wait for the second instruction, pick, put in."""

from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.experts._grasping import Grasping, leaning
from envs.experts._motion import CLOSED, OPEN, Tool
from envs.experts.drawer import Opening
from envs.geometry import Vector
from envs.tasks._drawer import OPENED, joint
from envs.tasks._place_in_drawer import PlaceInDrawer

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

_WIDE = 0.25  # [m] to which the drawer is opened
_CARRIED = 0.05  # [m] of the object above where it lay, while it crosses the cabinet's edge
_DROP = 0.03  # [m] of the object above where it will lie, when it is let go
_OVER = 0.02  # [m] in the plane from the middle of the opening, from where on it goes straight down
_OUT = 0.25  # [m] of the tool above the object, where the hand is out of the way
_PAST = 0.06  # [m] of the tool above the object, from where on the hand closes to get past the handles above
_LEANING_AT = 0.90  # [m] the hand leans as at this height, however low it is: the wrist clears the handles above
_DONE_STEPS = 3


class Phase(Enum):
    OPEN = auto()
    WAIT = auto()
    REACH = auto()
    CARRY = auto()
    RELEASE = auto()
    RETREAT = auto()


class PlaceInDrawerExpert:
    """Opens the drawer, and when it is told to, puts the object into it.

    Args:
        env: the environment whose episodes to solve.

    Attributes:
        done: solved, released and out of the way.
    """

    def __init__(self, env: "ManipulationEnv") -> None:
        self._env = env
        self.done = False

    def reset(self) -> None:
        assert isinstance(self._env.goal, PlaceInDrawer)
        self._goal = self._env.goal
        self._tool = Tool(self._env)
        self._ready = self._tool.position, self._tool.rotation
        self._opening = Opening(self._env, self._goal.drawer, _WIDE)
        self._grasping = Grasping(self._env, self._goal.source)
        self._lay = self._where()[2]
        self._phase = Phase.OPEN
        self._done_steps = 0
        self.done = False

    def action(self) -> NDArray[np.float32]:
        self._grasping.look()
        self._advance()
        match self._phase:
            case Phase.OPEN:
                return self._opening.action()
            case Phase.WAIT:
                return self._tool.towards(*self._ready, OPEN)
            case Phase.REACH:
                return self._grasping.action()
            case Phase.CARRY:
                return self._go(self._way(), CLOSED)
            case Phase.RELEASE:
                return self._go(np.zeros(3), OPEN)
            case Phase.RETREAT:
                up = self._where()[2] + _OUT - self._tool.position[2]
                gripper = OPEN if up > _OUT - _PAST else CLOSED
                return self._go(np.array([0.0, 0.0, up]), gripper)

    def _advance(self) -> None:
        """Choose the phase from what is measured now."""
        fingers = self._env.world.finger_contacts(self._goal.source)
        match self._phase:
            case Phase.OPEN if self._opening.done:
                self._phase = Phase.WAIT
            case Phase.WAIT if self._drawn() < OPENED:
                self._phase = Phase.OPEN
            case Phase.WAIT if self._env.judge.is_final_subtask:
                self._phase = Phase.REACH
            case Phase.REACH if self._env.success.strict:
                self._phase = Phase.RETREAT
            case Phase.REACH if self._grasping.held:
                self._phase = Phase.CARRY
            case Phase.CARRY if fingers == 0:
                self._phase = Phase.REACH
            case Phase.CARRY if self._is_in():
                self._phase = Phase.RELEASE
            case Phase.RELEASE if fingers == 0:
                self._phase = Phase.RETREAT
            case Phase.RETREAT if not self._env.success.stats["inside"]:
                self._phase = Phase.REACH
        clear = self._tool.position[2] > self._where()[2] + 0.8 * _OUT
        solved = self._phase is Phase.RETREAT and clear and self._env.success.strict
        self._done_steps = self._done_steps + 1 if solved else 0
        self.done = self._done_steps >= _DONE_STEPS

    def _way(self) -> Vector:
        """(3,) [m] of the held object: up, across, and down, below the cabinet's top only in the middle."""
        across = self._spot() - self._where()
        away, sunk = float(np.linalg.norm(across[:2])), self._lay - self._where()[2]
        down = across * [1.0, 1.0, float(away < _OVER)]
        up = np.array([0.0, 0.0, _CARRIED + sunk])
        if away < _OVER or sunk > _CARRIED:
            return down
        return up if sunk > -_CARRIED / 2 else up + across * [1.0, 1.0, 0.0]

    def _go(self, way: Vector, gripper: float) -> NDArray[np.float32]:
        """(7,) the action that moves the leaning tool by this much [m]."""
        rotation = leaning(_LEANING_AT) @ self._tool.pointing_down(self._tool.yaw)
        return self._tool.towards(self._tool.position + way, rotation, gripper)

    def _spot(self) -> Vector:
        """(3,) [m] of the object's centre when it is let go."""
        points = self._env.judge.keypoints()
        rest = self._lay - self._tool.surface
        return self._env.world.in_base(points.target) + np.array([0.0, 0.0, rest + _DROP])

    def _is_in(self) -> bool:
        across = self._spot() - self._where()
        return float(np.linalg.norm(across[:2])) < 2 * _OVER and across[2] > -0.01

    def _drawn(self) -> float:
        return self._env.world.joint(joint(self._goal.drawer))

    def _where(self) -> Vector:
        return self._env.world.in_base(self._env.world.position(self._goal.source))


EXPERT = PlaceInDrawerExpert
