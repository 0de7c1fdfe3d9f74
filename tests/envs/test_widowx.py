"""The arm is the arm that SIMPLER identified: same kinematics, same step response, same camera, nothing sags."""

import mujoco
import numpy as np
import pytest

from envs.robot import Actuator, Mount
from envs.robots.widowx import ROBOT, SINK_MOUNT, TABLE_MOUNT
from tests.envs.arms import arm_model, camera_in_base, data_at, in_base, sag, step_response

TCP_IN_BASE = {  # joint positions [rad] -> TCP in base_link [m], computed from the manufacturer's dimensions
    TABLE_MOUNT.arm: (0.292069, -0.006091, 0.135321),
    SINK_MOUNT.arm: (0.249719, -0.067508, 0.227593),
    (0.0, -0.96, 1.16, 0.0, -0.3, 0.0): (0.226534, 0.0, 0.260949),
    (0.0,) * 6: (0.458325, 0.0, 0.36065),
}
CAMERA_AXES = {  # mount -> x and y axis of its camera in base_link, from SIMPLER's look-at poses
    TABLE_MOUNT: ((0.483933, -0.875105, 0.0), (0.602558, 0.333214, 0.725184)),
    SINK_MOUNT: ((0.410365, -0.911921, 0.0), (0.630683, 0.283808, 0.722282)),
}


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return arm_model(ROBOT, TABLE_MOUNT)


@pytest.mark.parametrize(("joints", "expected"), TCP_IN_BASE.items())
def test_tool_is_where_the_kinematics_say(
    model: mujoco.MjModel, joints: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    data = data_at(ROBOT, model, joints)
    assert np.allclose(in_base(data, data.site("tcp").xpos), expected, atol=1e-4)


@pytest.mark.parametrize("mount", CAMERA_AXES, ids=["table", "sink"])
def test_camera_looks_as_simpler_s(mount: Mount) -> None:
    position, axes = camera_in_base(ROBOT, mount)
    expected = (0.0, -0.16, 0.36) if mount is TABLE_MOUNT else (-0.003, -0.21, 0.39)
    assert np.allclose(position, expected, atol=1e-4)
    assert np.allclose(axes[:2], CAMERA_AXES[mount], atol=1e-4)


def test_mass_is_the_arm_s(model: mujoco.MjModel) -> None:
    assert mujoco.mj_getTotalmass(model) == pytest.approx(2.1335, abs=1e-3)


@pytest.mark.parametrize("servo", ROBOT.arm, ids=lambda servo: servo.joint)
def test_step_has_the_identified_time_constant(model: mujoco.MjModel, servo: Actuator) -> None:
    time = step_response(ROBOT, model, TABLE_MOUNT.arm, servo.joint)
    assert time == pytest.approx(servo.damping / servo.stiffness, rel=0.05)


def test_gravity_is_compensated(model: mujoco.MjModel) -> None:
    assert sag(ROBOT, model, TABLE_MOUNT.arm) < 1e-4
