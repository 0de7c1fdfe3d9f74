"""The arm is the arm that SIMPLER identified: same kinematics, same step response, nothing sags."""

import mujoco
import numpy as np
import pytest

from envs.robots.widowx import ROBOT

SINK_START = (-0.2600599, -0.12875618, 0.04461369, -0.00652761, 1.7033415, -0.26983038)
TCP_IN_BASE = {  # joint positions [rad] -> TCP in base_link [m], computed from the manufacturer's dimensions
    ROBOT.initial_arm: (0.292069, -0.006091, 0.135321),
    SINK_START: (0.249719, -0.067508, 0.227593),
    (0.0, -0.96, 1.16, 0.0, -0.3, 0.0): (0.226534, 0.0, 0.260949),
    (0.0,) * 6: (0.458325, 0.0, 0.36065),
}


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    scene = ROBOT.scene()
    scene.option.timestep = ROBOT.physics_step
    scene.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return scene.compile()


def data_at(model: mujoco.MjModel, joints: tuple[float, ...]) -> mujoco.MjData:
    data = mujoco.MjData(model)
    for servo, value in zip(ROBOT.arm, joints, strict=True):
        data.joint(servo.joint).qpos[0] = value
        data.ctrl[model.actuator(servo.joint).id] = value
    mujoco.mj_forward(model, data)
    return data


@pytest.mark.parametrize(("joints", "expected"), TCP_IN_BASE.items())
def test_tool_is_where_the_kinematics_say(
    model: mujoco.MjModel, joints: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    data = data_at(model, joints)
    base_to_world = data.body("base_link").xmat.reshape(3, 3)
    tcp = base_to_world.T @ (data.site("tcp").xpos - data.body("base_link").xpos)
    assert np.allclose(tcp, expected, atol=1e-4)


def test_mass_is_the_arm_s(model: mujoco.MjModel) -> None:
    assert mujoco.mj_getTotalmass(model) == pytest.approx(2.1335, abs=1e-3)


def test_shoulder_step_has_the_identified_time_constant(model: mujoco.MjModel) -> None:
    data = data_at(model, ROBOT.initial_arm)
    start = data.joint("shoulder").qpos[0]
    data.ctrl[model.actuator("shoulder").id] = start + 0.1
    while data.joint("shoulder").qpos[0] < start + 0.1 * (1 - np.exp(-1)):
        mujoco.mj_step(model, data)
    assert data.time == pytest.approx(0.248, rel=0.05)


def test_gravity_is_compensated(model: mujoco.MjModel) -> None:
    data = data_at(model, ROBOT.initial_arm)
    mujoco.mj_step(model, data, nstep=1000)
    joints = [data.joint(servo.joint).qpos[0] for servo in ROBOT.arm]
    assert np.allclose(joints, ROBOT.initial_arm, atol=1e-4)
