"""The controller moves the tool as SIMPLER's controllers do, stays inside every limit, and never throws the tool."""

import math
from dataclasses import replace

import mujoco
import numpy as np
import pytest

from envs.control import EndEffectorController
from envs.geometry import (
    Matrix,
    PlanarPose,
    Vector,
    matrix_from_rotation_vector,
    rotation_vector_from_matrix,
)
from envs.kinematics import ArmKinematics
from envs.planning import plan
from envs.robot import MotionLimits, Mount, Robot
from envs.robots import google_robot, widowx
from tests.envs.arms import arm_joints, arm_model, data_at

GOOGLE_MOUNT = Mount(PlanarPose(0.35, 0.20, math.pi), google_robot.HEIGHT, google_robot.START)
MODELS: dict[str, mujoco.MjModel] = {
    "widowx": arm_model(widowx.ROBOT, widowx.TABLE_MOUNT),
    "google_robot": arm_model(google_robot.ROBOT, GOOGLE_MOUNT),
}
ROBOTS = pytest.mark.parametrize("robot", [widowx.ROBOT, google_robot.ROBOT], ids=lambda robot: robot.name)
STARTS = {"widowx": widowx.TABLE_MOUNT.arm, "google_robot": google_robot.START}


class Arm:
    """A robot at its start with its controller."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.model = MODELS[robot.name]
        self.data = data_at(robot, self.model, STARTS[robot.name])
        self.controller = EndEffectorController(robot, self.model)
        self.controller.reset(self.data)

    @property
    def pose(self) -> tuple[Vector, Matrix]:
        return self.controller.tool_pose(self.data)

    def step(self, *motion: float, gripper: float = 1.0, times: int = 1) -> bool:
        """Repeat an action of up to six numbers; whether the last was clipped."""
        clipped = False
        for _ in range(times):
            action = np.array([*motion, *[0.0] * (6 - len(motion)), gripper])
            clipped = self.controller.command(self.data, action)
            self.controller.advance(self.data)
        return clipped


@ROBOTS
def test_an_action_of_nothing_moves_nothing(robot: Robot) -> None:
    arm = Arm(robot)
    position, rotation = arm.pose
    assert not arm.step(times=5)
    assert np.allclose(arm.pose[0], position, atol=1e-5)
    assert np.allclose(arm.pose[1], rotation, atol=1e-4)


def test_motion_added_to_the_target_is_not_lost_to_lag() -> None:
    arm = Arm(widowx.ROBOT)
    start, _ = arm.pose
    arm.step(0.01, times=5)
    arm.step(times=15)
    assert np.allclose(arm.pose[0] - start, [0.05, 0, 0], atol=1e-3)


def test_motion_added_to_the_measured_tool_starts_where_the_tool_is() -> None:
    arm = Arm(google_robot.ROBOT)
    arm.step(0.05, times=3)
    position, rotation = arm.pose
    turn = np.array([0.0, 0.1, 0.2])
    arm.controller.command(arm.data, np.array([0.02, 0.01, -0.03, *turn, 1.0]))
    assert np.allclose(arm.controller.target_position - position, [0.02, 0.01, -0.03])
    assert np.allclose(arm.controller.target_rotation, matrix_from_rotation_vector(turn) @ rotation)


def test_an_accumulating_target_turns_about_the_measured_tool() -> None:
    arm = Arm(widowx.ROBOT)
    arm.step(0.03, 0.02)
    tool, _ = arm.pose
    target, rotation = arm.controller.target_position.copy(), arm.controller.target_rotation.copy()
    turn = matrix_from_rotation_vector(np.array([0.0, 0.0, 0.3]))
    arm.controller.command(arm.data, np.array([0, 0, 0.01, 0, 0, 0.3, 1.0]))
    assert np.linalg.norm(target - tool) > 0.005  # the tool lags behind, so where it turns matters
    assert np.allclose(arm.controller.target_position, tool + turn @ (target - tool) + [0, 0, 0.01])
    assert np.allclose(arm.controller.target_rotation, turn @ rotation)


def test_rotation_leaves_the_tool_in_place() -> None:
    arm = Arm(widowx.ROBOT)
    position, rotation = arm.pose
    arm.step(0, 0, 0, 0, 0, 0.3)
    arm.step(times=15)
    assert np.allclose(arm.pose[0], position, atol=1e-3)
    assert np.allclose(rotation_vector_from_matrix(arm.pose[1] @ rotation.T), [0, 0, 0.3], atol=0.01)


@ROBOTS
def test_targets_outside_the_workspace_are_clipped_and_flagged(robot: Robot) -> None:
    arm = Arm(robot)
    assert not arm.step(0.01)
    assert arm.step(0, 0, 2.0)
    lowest, highest = np.array(robot.workspace)
    assert (arm.controller.target_position >= lowest).all()
    assert (arm.controller.target_position <= highest).all()


@ROBOTS
def test_gripper_commands_beyond_one_are_clipped_and_flagged(robot: Robot) -> None:
    arm = Arm(robot)
    assert arm.step(gripper=1.5)
    assert not arm.step(gripper=-1.0)


@ROBOTS
def test_out_of_reach_is_flagged_and_does_not_add_up(robot: Robot) -> None:
    arm = Arm(robot)
    assert arm.step(0, 0, 0, 0, -0.5, times=30)  # the wrist cannot turn for ever
    _, rotation = arm.pose
    arm.step(0, 0, 0, 0, 0.5, times=10)
    assert np.linalg.norm(rotation_vector_from_matrix(arm.pose[1] @ rotation.T)) > 0.3


@ROBOTS
@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_action_the_joints_stay_in_range(robot: Robot, seed: int) -> None:
    arm, rng = Arm(robot), np.random.default_rng(seed)
    ranges = np.array([arm.model.joint(servo.joint).range for servo in robot.arm])
    for scale in (0.05, 0.3, 1.0, 1e6):
        for _ in range(10):
            arm.step(*rng.uniform(-scale, scale, 6), gripper=rng.uniform(-1, 1))
            joints = arm_joints(robot, arm.data)
            assert (joints > ranges[:, 0] - 0.02).all()
            assert (joints < ranges[:, 1] + 0.02).all()


@ROBOTS
def test_servo_forces_stay_within_their_limits(robot: Robot) -> None:
    arm = Arm(replace(robot, control_period=robot.physics_step))  # one physics step a command
    servos = (*robot.arm, *robot.gripper)
    limits = np.array([servo.force_limit for servo in servos])
    actuators = [arm.model.actuator(servo.joint).id for servo in servos]
    strongest = np.zeros(len(servos))
    for step in range(200):
        arm.step(0.0, 0.3 if step < 100 else -0.3, 0.0, 1.0, gripper=1.0 if step % 50 < 25 else -1.0)
        strongest = np.maximum(strongest, np.abs(arm.data.actuator_force[actuators]))
    assert (strongest <= limits * (1 + 1e-9)).all()


@ROBOTS
def test_gripper_moves_between_its_two_targets(robot: Robot) -> None:
    arm = Arm(robot)
    closed, opened = robot.finger_targets

    def opening() -> float:
        fingers = [arm.data.joint(servo.joint).qpos[0] for servo in robot.gripper]
        return (float(np.mean(fingers)) - closed) / (opened - closed)

    arm.step(gripper=-1.0, times=6)
    assert opening() < 0.25  # Google's fingers meet before they reach the target
    arm.step(gripper=0.0, times=6)
    assert opening() == pytest.approx(0.5, abs=0.05)
    arm.step(gripper=1.0, times=6)
    assert opening() > 0.9


WORK_AREAS = {  # lowest and highest TCP in base_link [m], yaws and lean of the tool [rad]
    "widowx": ([0.20, -0.15, 0.03], [0.40, 0.15, 0.15], (-1.5, 1.5), 0.0),
    "google_robot": ([0.45, -0.22, 0.81], [0.70, 0.20, 0.95], (-2.6, 0.7), 0.4),
}


@ROBOTS
@pytest.mark.parametrize("seed", range(20))
def test_inverse_kinematics_reaches_the_work_area(robot: Robot, seed: int) -> None:
    lowest, highest, yaws, lean = WORK_AREAS[robot.name]
    rng = np.random.default_rng(seed)
    kinematics = ArmKinematics(robot, MODELS[robot.name])
    joints = np.array(STARTS[robot.name])
    start, start_rotation = kinematics.forward(joints)
    goal = rng.uniform(lowest, highest)
    turned = matrix_from_rotation_vector(np.array([0, 0, rng.uniform(*yaws)])) @ np.array(robot.top_down)
    rotation = matrix_from_rotation_vector(np.array([0, -lean, 0])) @ turned
    turn = rotation_vector_from_matrix(rotation @ start_rotation.T)
    for fraction in np.linspace(0.05, 1.0, 20):  # small moves, as actions are
        position = start + fraction * (goal - start)
        before = joints
        joints, reached = kinematics.inverse(
            position, matrix_from_rotation_vector(fraction * turn) @ start_rotation, before
        )
        assert reached
        assert np.abs(joints - before).max() < 0.5
    assert np.allclose(kinematics.forward(joints)[0], goal, atol=1e-3)


LIMITS = MotionLimits(velocity=1.5, acceleration=2.0, jerk=50.0)


@pytest.mark.parametrize("seed", range(5))
def test_planned_paths_keep_their_limits_and_arrive_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, goal, velocity = rng.uniform(-2, 2, 7), rng.uniform(-2, 2, 7), rng.uniform(-0.5, 0.5, 7)
    times = np.linspace(0.0, 6.0, 6001)
    positions, velocities = plan(start, velocity, goal, LIMITS, times)
    accelerations = np.diff(velocities, axis=0) / 1e-3
    jerks = np.diff(accelerations, axis=0) / 1e-3
    assert np.allclose(positions[0], start)
    assert np.allclose(velocities[0], velocity)
    assert np.allclose(positions[-1], goal)
    assert np.abs(velocities).max() <= 1.5 + 1e-6
    assert np.abs(accelerations).max() <= 2.0 + 1e-3
    assert np.abs(jerks).max() <= 50.0 + 1e-3
    arrived = (np.abs(positions - goal) > 1e-4).sum(axis=0)  # steps until each joint is there
    assert np.ptp(arrived) < 0.05 * arrived.max()


def test_a_path_goes_on_from_where_the_previous_one_was_left() -> None:
    arm, joints = Arm(google_robot.ROBOT), len(google_robot.ROBOT.arm)
    paths = []
    for direction in (0.1, 0.1, -0.1):
        arm.step(direction)
        paths.append(arm.controller.servo_targets[:, :joints].copy())
    path, period = np.concatenate(paths), arm.robot.physics_step
    moves = path[1:] - path[:-1]
    assert np.abs(moves).max() > 0.1 * period
    assert np.abs(moves).max() <= 1.5 * period
    assert np.abs(moves[1:] - moves[:-1]).max() <= 2.0 * period**2 + 1e-9


def test_without_a_planner_the_servos_get_the_target_at_once() -> None:
    arm = Arm(widowx.ROBOT)
    arm.step(0.02)
    assert np.ptp(arm.controller.servo_targets, axis=0).max() == 0.0


def test_a_path_to_where_the_joints_are_has_no_length() -> None:
    """Rounding of a resting gripper once was a path that Ruckig could not find."""
    start = np.array([0.649949999999999, 0.6499500000000012])
    goal, velocity = np.full(2, 0.64995), np.array([1.377411440275379e-15, -1.83075738730015e-16])
    limits = MotionLimits(velocity=1.0, acceleration=7.0, jerk=50.0)
    positions, velocities = plan(start, velocity, goal, limits, np.linspace(0, 0.3, 4))
    np.testing.assert_allclose(positions, np.tile(goal, (4, 1)), atol=1e-9)
    np.testing.assert_allclose(velocities, 0, atol=1e-9)
