"""What every expert moves with: the measured tool, limited steps towards a pose, and grasps from above."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.geometry import Matrix, Vector, rotation_vector_from_matrix, wrap
from envs.object_model import ObjectModel
from envs.scenes._conveyor import CONVEYOR

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

OPEN, CLOSED = 1.0, -1.0


@dataclass(frozen=True)
class Style:
    """How an expert moves a robot.

    Attributes:
        gain: part of the measured gap that one action asks for.
        max_step: [m] per action.
        max_turn: [rad] per action.
        usual_yaw: of the tool [rad]; of the yaws that are the same for a parallel gripper the nearest to it is taken.
            Starts that are a quarter turn away from it (cubes: an eighth) would teach two answers.
        lowest_grasp: of the TCP above the surface, so that the fingertips do not press on it [m].
    """

    gain: float
    max_step: float
    max_turn: float
    usual_yaw: float
    lowest_grasp: float


_STYLES = {
    # Targets accumulate: with the arm's lag this gain overshoots by about 5 %. Grasp yaws of all starts, jitter
    # included, are in [-65, 65] degrees in the sink and in [-20, 110] degrees on the table.
    "widowx": Style(gain=0.4, max_step=0.035, max_turn=0.25, usual_yaw=np.pi / 8, lowest_grasp=0.019),
    # Each action starts from the measured pose.
    "google_robot": Style(gain=1.5, max_step=0.10, max_turn=0.35, usual_yaw=-np.pi / 3, lowest_grasp=0.009),
}


@dataclass(frozen=True)
class Gap:
    """How far the tool is from a pose: in the plane [m], above it [m], about the vertical [rad]."""

    plane: float
    above: float
    turn: float

    def within(self, plane: float, above: float, turn: float) -> bool:
        return self.plane < plane and abs(self.above) < above and self.turn < turn


class Tool:
    """The tool of an environment's robot as it is measured now, and actions that move it; all in the base frame.

    Args:
        env: the environment; its world is looked up at every call, because a reset may replace it.
    """

    def __init__(self, env: "ManipulationEnv") -> None:
        self._env = env
        self._style = _STYLES[env.robot.name]
        self._top_down = np.array(env.robot.top_down)

    @property
    def position(self) -> Vector:
        """(3,) [m] of the TCP."""
        return self._env.world.controller.tool_pose(self._env.world.data)[0]

    @property
    def surface(self) -> float:
        """[m] height of what objects stand on."""
        return self._env.task.scene.surface - self._env.world.mount.height

    @property
    def rotation(self) -> Matrix:
        """(3, 3) of the tool frame."""
        return self._env.world.controller.tool_pose(self._env.world.data)[1]

    @property
    def yaw(self) -> float:
        """[rad] about the vertical, 0 for the top-down pose, whose fingers close along the base's y axis."""
        aligned = self.rotation @ self._top_down.T
        return float(np.arctan2(aligned[1, 0], aligned[0, 0]))

    def pointing_down(self, yaw: float) -> Matrix:
        """(3, 3) rotation of a tool that points down, turned by `yaw` [rad]."""
        return about_vertical(yaw) @ self._top_down

    def gap(self, position: Vector, yaw: float) -> Gap:
        """From a position (3,) [m] and a yaw [rad]."""
        offset = self.position - position
        turn = abs(wrap(self.yaw - yaw, -np.pi, 2 * np.pi))
        return Gap(float(np.linalg.norm(offset[:2])), float(offset[2]), turn)

    def towards(self, position: Vector, rotation: Matrix, gripper: float) -> NDArray[np.float32]:
        """(7,) the action that goes on to a position (3,) [m] and a rotation (3, 3)."""
        move = self._style.gain * (position - self.position)
        turn = self._style.gain * rotation_vector_from_matrix(rotation @ self.rotation.T)
        action = [*limited(move, self._style.max_step), *limited(turn, self._style.max_turn), gripper]
        return np.array(action, np.float32)

    def grasp(self, model: ObjectModel, any_yaw: float | None = None) -> tuple[Vector, float]:
        """Position (3,) [m] and yaw [rad] that take hold of an object from above, as it lies now.

        Args:
            model: the object.
            any_yaw: taken where any will do; the present one if None.

        Raises:
            ValueError: if the object has no grasp.
        """
        if model.grasp is None:
            raise ValueError(f"{model.name} has no grasp")
        world = self._env.world
        grasp = model.grasp(world.base_rotation.T @ world.rotation(model.name))
        point = world.in_base(world.origin(model.name)) + grasp.point
        point[2] = max(point[2], self.surface + self._style.lowest_grasp)
        if not grasp.closings:
            return point, self.yaw if any_yaw is None else any_yaw
        return point, grasp.nearest_closing(self._style.usual_yaw + np.pi / 2) - np.pi / 2

    def yaw_to_close_along(self, direction: Vector) -> float:
        """[rad] at which the fingers close along a direction (3,) in the base frame."""
        yaw = float(np.arctan2(-direction[0], direction[1]))
        return wrap(yaw, self._style.usual_yaw - np.pi / 2, np.pi)


def funnel(gap: Gap, highest: float) -> float:
    """[m] above a grasp: down only as far as the tool is aligned, so that fingers never land on the object."""
    return min(3.0 * max(gap.plane - 0.005, 0.0) + 0.2 * max(gap.turn - 0.12, 0.0), highest)


def lead(env: "ManipulationEnv", name: str, seconds: float) -> Vector:
    """(3,) [m] in the base frame that a conveyor will carry an object in that time; zero if it is not on the belt."""
    world = env.world
    if not world.touching(name, CONVEYOR):
        return np.zeros(3)
    return world.base_rotation.T @ np.array([0.0, world.joint_speed(CONVEYOR) * seconds, 0.0])


def about_vertical(yaw: float) -> Matrix:
    """(3, 3) rotation by `yaw` [rad]."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def limited(vector: Vector, limit: float) -> Vector:
    """The vector, shortened to at most this length."""
    length = float(np.linalg.norm(vector))
    return vector * min(1.0, limit / length) if length > 0 else vector
