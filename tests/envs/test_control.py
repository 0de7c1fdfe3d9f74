"""The controller follows the previous target, stays inside its limits, and never throws the tool."""

import numpy as np
import pytest
from numpy.typing import NDArray

import envs
from envs.geometry import matrix_from_rotation_vector, rotation_vector_from_matrix
from envs.manipulation import ManipulationEnv


def steps(env: ManipulationEnv, action: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The state after repeating an action."""
    for _ in range(count - 1):
        env.step(action)
    return env.step(action)[0]["state"]


FORWARD = np.array([0.01, 0, 0, 0, 0, 0, 1], np.float32)
HOLD = np.array([0, 0, 0, 0, 0, 0, 1], np.float32)


@pytest.fixture
def env() -> ManipulationEnv:
    env = envs.make("widowx_spoon_on_towel", render=False)
    env.reset(seed=0)
    return env


def test_commanded_motion_is_not_lost_to_lag(env: ManipulationEnv) -> None:
    start = env.reset(seed=0)[0]["state"][:3]
    steps(env, FORWARD, 5)
    state = steps(env, HOLD, 15)
    assert np.allclose(state[:3] - start, [0.05, 0, 0], atol=2e-3)


def test_rotation_turns_about_the_tool(env: ManipulationEnv) -> None:
    start = env.reset(seed=0)[0]["state"]
    env.step(np.array([0, 0, 0, 0, 0, 0.3, 1], np.float32))
    state = steps(env, HOLD, 15)
    assert np.allclose(state[:3], start[:3], atol=2e-3)
    assert state[5] - start[5] == pytest.approx(0.3, abs=0.02)


def test_targets_outside_the_workspace_are_clipped_and_flagged(env: ManipulationEnv) -> None:
    assert not env.step(FORWARD)[4]["clipped"]
    assert env.step(np.array([0, 0, -1.0, 0, 0, 0, 1], np.float32))[4]["clipped"]
    lowest = env.robot.workspace[0][2]
    assert env.world.controller.target_position[2] == pytest.approx(lowest)


def test_gripper_moves_between_its_two_targets(env: ManipulationEnv) -> None:
    close = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
    assert steps(env, close, 5)[6] < 0.1
    assert steps(env, HOLD, 5)[6] > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_inverse_kinematics_reaches_poses_of_the_work_area(env: ManipulationEnv, seed: int) -> None:
    rng = np.random.default_rng(seed)
    position = rng.uniform([0.22, -0.08, 0.03], [0.40, 0.12, 0.15])
    rotation = matrix_from_rotation_vector(np.array([0, 0, rng.uniform(-1.5, 1.5)])) @ np.array(env.robot.top_down)
    controller = env.world.controller
    for fraction in np.linspace(0.1, 1.0, 10):  # small moves, as actions are
        start = controller.target_position
        controller.command(env.world.data, np.array([*(fraction * (position - start)), 0, 0, 0, 1]))
        controller.target_rotation = rotation
    controller.command(env.world.data, np.array([*(position - controller.target_position), 0, 0, 0, 1]))
    steps(env, HOLD, 20)
    reached, reached_rotation = controller.tool_pose(env.world.data)
    assert np.allclose(reached, position, atol=3e-3)
    assert np.linalg.norm(rotation_vector_from_matrix(rotation @ reached_rotation.T)) < 0.12
