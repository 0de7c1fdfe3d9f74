"""Taking hold of one object among others in front of the Google robot."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs import objects
from envs.experts._motion import CLOSED, OPEN, Tool
from envs.geometry import Matrix, Vector, matrix_from_rotation_vector

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

_CRUISE = 0.16  # [m] of the TCP above the table on the way to an object: the open fingers clear a standing can
_TALL = 0.15  # [m] of height, from which on an object is approached from the side
_ASIDE = 0.17  # [m] before a tall object: room for the open hand to turn
_CLEARANCE = 0.17  # [m] of the open hand's centre from what it does not clear
_FINGERS = 0.03  # [m] that the open fingers reach below the TCP when it leans, and a little more
_HELD_STEPS = 2
_ROUND_YAW = 0.0  # [rad] closing square to the hand's lean, so that it does not tip over what stands

_NO_LEAN_BELOW, _LEAN_PER_METRE, _MOST_LEAN = 0.76, 2.2, 0.55  # [m] in the base frame, [rad/m], [rad]


class Grasping:
    """Goes to an object, closes, and says whether it is held.

    Args:
        env: the environment, after a reset.
        name: of the object.

    Attributes:
        tool: moves the robot.
        held: whether both fingers have been on the object for a while.
    """

    def __init__(self, env: "ManipulationEnv", name: str) -> None:
        self._env, self._name, self._model = env, name, objects.find(name)
        self.tool = Tool(env)
        self.held = self._closing = False
        self._steps = 0

    @property
    def is_tall(self) -> bool:
        """Whether the object is too high for the open hand to pass over."""
        return 2 * (self._where(self._name)[2] - self.tool.surface) > _TALL

    def look(self) -> None:
        """Take notice of the state; once before every action."""
        fingers = self._env.world.finger_contacts(self._name)
        gap = self.tool.gap(*self.pose())
        self._steps = self._steps + 1 if fingers == 2 and self._closing else 0
        self.held = self._steps >= _HELD_STEPS
        if not self._closing:
            self._closing = gap.within(0.012, 0.010, 0.15)
        elif fingers < 2 and (not gap.within(0.03, 0.03, 0.3) or self._env.world.gripper_opening() < 0.25):
            self._closing = False

    def action(self) -> NDArray[np.float32]:
        """(7,) the action towards a hold."""
        grasp, yaw = self.pose()
        if self._closing:
            return self.go(grasp, yaw, CLOSED)
        axis, furthest = self._approach(grasp, yaw)
        position = grasp + axis * self._funnel(grasp, yaw, axis, furthest)
        lowest = position[2] - _FINGERS
        in_the_way = [place[:2] for place in self._others() if 2 * place[2] - self.tool.surface > lowest]
        position[:2] = around(self.tool.position[:2], position[:2], in_the_way, _CLEARANCE)
        return self.go(position, yaw, OPEN)

    def pose(self) -> tuple[Vector, float]:
        """Tool position (3,) [m] and yaw [rad] of the grasp in the base frame."""
        return self.tool.grasp(self._model, _ROUND_YAW)

    def go(self, position: Vector, yaw: float, gripper: float) -> NDArray[np.float32]:
        """(7,) the action towards a tool pose in the base frame."""
        return self.tool.towards(position, leaning(position[2]) @ self.tool.pointing_down(yaw), gripper)

    def _approach(self, grasp: Vector, yaw: float) -> tuple[Vector, float]:
        """From where to come: direction (3,) away from the grasp, and how far at most [m].

        From above; to something tall between the open fingers, from the side where the tool is.
        """
        if not self.is_tall:
            return np.array([0.0, 0.0, 1.0]), self.tool.surface + _CRUISE - grasp[2]
        axis = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        return axis * np.copysign(1.0, axis @ (self.tool.position - grasp)), _ASIDE

    def _funnel(self, grasp: Vector, yaw: float, axis: Vector, furthest: float) -> float:
        """[m] away from the grasp: nearer only as far as the tool is aligned, so that fingers never hit the object."""
        offset = self.tool.position - grasp
        aside = float(np.linalg.norm(offset - (offset @ axis) * axis))
        turn = self.tool.gap(grasp, yaw).turn
        return min(3.0 * max(aside - 0.008, 0.0) + 0.2 * max(turn - 0.12, 0.0), furthest)

    def _others(self) -> list[Vector]:
        """(3,) [m] of every other object in the base frame."""
        return [self._where(name) for name in self._env.world.objects if name != self._name]

    def _where(self, name: str) -> Vector:
        return self._env.world.in_base(self._env.world.origin(name))


def leaning(height: float) -> Matrix:
    """(3, 3) turn away from straight down, outwards, at a height [m] of the TCP in the base frame.

    The wrist bends by 1.79 rad at most: the higher the hand, the less straight down it can point.
    """
    lean = np.clip(_LEAN_PER_METRE * (height - _NO_LEAN_BELOW), 0.0, _MOST_LEAN)
    return matrix_from_rotation_vector(np.array([0.0, -lean, 0.0]))


def around(start: Vector, goal: Vector, obstacles: list[Vector], clearance: float) -> Vector:
    """(2,) [m] where to go next to reach a goal in the plane: the goal, or beside the first obstacle on the way.

    Args:
        start: (2,) [m]
        goal: (2,) [m]
        obstacles: (2,) each [m]
        clearance: to keep from them [m].
    """
    distance = float(np.linalg.norm(goal - start))
    ahead = (goal - start) / max(distance, 1e-6)
    left = np.array([-ahead[1], ahead[0]])
    seen = [(float((each - start) @ ahead), float((each - start) @ left)) for each in obstacles]
    in_the_way = [(along, aside) for along, aside in seen if 0 < along < distance and abs(aside) < clearance]
    if not in_the_way:
        return goal
    along, aside = min(in_the_way)
    return start + along * ahead + (aside - np.copysign(1.2 * clearance, aside)) * left
