"""Expert for put-on tasks: reach, close, carry, retreat, and again after a loss.

Every decision looks at the *measured* state, never at the clock or at the accumulated target: one picture has one
correct action, so a policy that sees only pictures can imitate it, also from states that noise or mistakes led to.
"""

from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.geometry import Matrix, Vector, rotation_vector_from_matrix, wrap
from envs.table import TABLE_HEIGHT

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

_GAIN = 0.4  # of the measured gap per step; with the arm's lag this overshoots by about 5 %
_MAX_STEP = 0.035  # [m]
_MAX_TURN = 0.25  # [rad]
_HOVER = 0.10  # highest approach above a grasp or a place [m]
_LIFT = 0.01  # [m] before moving sideways
_PLACE_CLEARANCE = 0.006  # [m] between the object and what it is put on when letting go
_RETREAT_HEIGHT = 0.12  # [m] of the TCP above the table
_SETTLED_STEPS = 3
OPEN, CLOSED = 1.0, -1.0


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
        if env.task.source.grasp is None:
            raise ValueError(f"{env.task.source.name} has no grasp")
        self._world = env.world
        self._task = env.task
        self._grasp = env.task.source.grasp
        self._top_down = np.array(env.robot.top_down)
        self.reset()

    def reset(self) -> None:
        self.done = False
        self._phase = Phase.REACH
        self._holding_steps = 0
        self._clear_steps = 0

    def action(self) -> NDArray[np.float32]:
        self._advance()
        position, yaw, gripper = self._wanted()
        measured_position, measured_rotation = self._tool()
        move = _GAIN * (position - measured_position)
        turn = _GAIN * rotation_vector_from_matrix(_about_vertical(yaw) @ self._top_down @ measured_rotation.T)
        return np.array([*_limited(move, _MAX_STEP), *_limited(turn, _MAX_TURN), gripper], np.float32)

    def _advance(self) -> None:
        """Choose the phase from what is measured now."""
        fingers = self._world.finger_contacts(self._task.source.name)
        self._holding_steps = self._holding_steps + 1 if fingers == 2 else 0
        match self._phase:
            case Phase.REACH if self._task.success(self._world).strict:
                self._phase = Phase.RETREAT
            case Phase.REACH if self._aligned():
                self._phase = Phase.CLOSE
            case Phase.CLOSE if self._holding_steps >= 2:
                self._phase = Phase.CARRY
            case Phase.CLOSE if self._missed():
                self._phase = Phase.REACH
            case Phase.CARRY if fingers == 0:
                self._phase = Phase.REACH
            case Phase.CARRY if self._over_place() and self._low_enough():
                self._phase = Phase.RELEASE
            case Phase.RELEASE if fingers == 0:
                self._phase = Phase.RETREAT
            case Phase.RETREAT if self._clear() and not self._task.success(self._world).official:
                self._phase = Phase.REACH
        solved = self._phase is Phase.RETREAT and self._clear() and self._task.success(self._world).strict
        self._clear_steps = self._clear_steps + 1 if solved else 0
        self.done = self._clear_steps >= _SETTLED_STEPS

    def _wanted(self) -> tuple[Vector, float, float]:
        """Wanted tool position [m] and yaw [rad] in the base frame, and gripper command."""
        position, _ = self._tool()
        match self._phase:
            case Phase.REACH:
                grasp, yaw = self._grasp_pose()
                return self._funnel(grasp, yaw), yaw, OPEN
            case Phase.CLOSE:
                grasp, yaw = self._grasp_pose()
                return grasp, yaw, CLOSED
            case Phase.CARRY:
                return self._carry_position(), self._tool_yaw(), CLOSED
            case Phase.RELEASE:
                return position, self._tool_yaw(), OPEN
            case Phase.RETREAT:
                return np.array([*position[:2], self._table() + _RETREAT_HEIGHT]), self._tool_yaw(), OPEN

    def _tool(self) -> tuple[Vector, Matrix]:
        return self._world.controller.tool_pose(self._world.data)

    def _tool_yaw(self) -> float:
        """[rad] about the vertical, 0 for the top-down pose."""
        _, rotation = self._tool()
        aligned = rotation @ self._top_down.T
        return float(np.arctan2(aligned[1, 0], aligned[0, 0]))

    def _table(self) -> float:
        """[m] height of the table in the base frame."""
        return TABLE_HEIGHT - self._world.robot.base_position[2]

    def _grasp_pose(self) -> tuple[Vector, float]:
        source = self._task.source
        rotation = self._world.rotation(source.name)
        point = self._world.origin(source.name) + rotation @ np.array([*self._grasp.offset, 0.0])
        in_base = self._world.in_base(point)
        surface = in_base[2] - source.rest_height  # what it lies on: the table, or something else
        # A parallel gripper is the same after half a turn; the cut lies away from the starting yaws.
        yaw = wrap(self._world.yaw_in_base(source.name) + self._grasp.yaw, -np.pi / 4, np.pi)
        return np.array([*in_base[:2], max(surface, self._table()) + self._grasp.height]), yaw

    def _errors(self) -> tuple[float, float, float]:
        """Distance [m] in the plane, height [m] and yaw [rad] from the grasp pose."""
        (position, _), (grasp, yaw) = self._tool(), self._grasp_pose()
        plane = float(np.linalg.norm(position[:2] - grasp[:2]))
        return plane, float(position[2] - grasp[2]), abs(wrap(self._tool_yaw() - yaw, -np.pi, 2 * np.pi))

    def _funnel(self, grasp: Vector, yaw: float) -> Vector:
        """Come down only as far as the tool is aligned, so that fingers never land on the object."""
        plane, _, turn = self._errors()
        height = 3.0 * max(plane - 0.008, 0.0) + 0.2 * max(turn - 0.12, 0.0)
        return grasp + np.array([0.0, 0.0, min(height, _HOVER)])

    def _aligned(self) -> bool:
        plane, height, turn = self._errors()
        return plane < 0.010 and abs(height) < 0.007 and turn < 0.15

    def _missed(self) -> bool:
        plane, _, _ = self._errors()
        return plane > 0.03 or (self._world.gripper_opening() < 0.1 and self._holding_steps == 0)

    def _place(self) -> Vector:
        """(3,) [m] where the source's origin should be when let go, in the base frame."""
        target = self._task.target
        place = self._world.in_base(self._world.position(target.name))
        top = place[2] + target.size[2] / 2
        return np.array([*place[:2], top + self._task.source.rest_height + _PLACE_CLEARANCE])

    def _carry_position(self) -> Vector:
        """Tool position that brings the held object over its place: up first, then across, then down."""
        position, _ = self._tool()
        source = self._world.in_base(self._world.position(self._task.source.name))
        gap = self._place() - source
        distance = float(np.linalg.norm(gap[:2]))
        height = gap[2] + min(3.0 * max(distance - 0.02, 0.0), 0.06)
        lifted = source[2] - self._table() - self._task.source.rest_height
        if lifted < _LIFT and distance > 0.03:
            return position + np.array([0.0, 0.0, max(height, 3 * _LIFT)])
        return position + np.array([*gap[:2], height])

    def _over_place(self) -> bool:
        source = self._world.in_base(self._world.position(self._task.source.name))
        return float(np.linalg.norm((self._place() - source)[:2])) < 0.020

    def _low_enough(self) -> bool:
        source = self._world.in_base(self._world.position(self._task.source.name))
        return float(source[2] - self._place()[2]) < 0.010

    def _clear(self) -> bool:
        position, _ = self._tool()
        return float(position[2]) - self._table() > 0.08


EXPERT = PutOnExpert


def _about_vertical(yaw: float) -> Matrix:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _limited(vector: Vector, limit: float) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector * min(1.0, limit / length) if length > 0 else vector
