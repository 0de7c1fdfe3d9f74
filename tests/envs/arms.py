"""A robot by itself, for tests of its arm."""

import mujoco
import numpy as np

from envs.geometry import Matrix, Vector
from envs.robot import Mount, Robot


def arm_model(robot: Robot, mount: Mount) -> mujoco.MjModel:
    """The robot without a scene, with the physics of every scene."""
    spec = robot.spec(mount)
    spec.option.timestep = robot.physics_step
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return spec.compile()


def data_at(robot: Robot, model: mujoco.MjModel, joints: tuple[float, ...]) -> mujoco.MjData:
    """The arm at rest at joint positions [rad], with its servos holding them."""
    data = mujoco.MjData(model)
    for servo, value in zip(robot.arm, joints, strict=True):
        data.joint(servo.joint).qpos[0] = value
        data.ctrl[model.actuator(servo.joint).id] = value
    mujoco.mj_forward(model, data)
    return data


def arm_joints(robot: Robot, data: mujoco.MjData) -> Vector:
    """(J,) joint positions [rad]."""
    return np.array([data.joint(servo.joint).qpos[0] for servo in robot.arm])


def in_base(data: mujoco.MjData, position: Vector) -> Vector:
    """A world position (3,) [m] in the frame of base_link."""
    base = data.body("base_link")
    return base.xmat.reshape(3, 3).T @ (position - base.xpos)


def step_response(robot: Robot, model: mujoco.MjModel, start: tuple[float, ...], joint: str) -> float:
    """Time [s] in which a joint does 63 % of a step of 0.1 rad."""
    data = data_at(robot, model, start)
    begin = data.joint(joint).qpos[0]
    data.ctrl[model.actuator(joint).id] = begin + 0.1
    while data.joint(joint).qpos[0] < begin + 0.1 * (1 - np.exp(-1)):
        mujoco.mj_step(model, data)
    return data.time


def sag(robot: Robot, model: mujoco.MjModel, start: tuple[float, ...], seconds: float = 2.0) -> float:
    """How far [rad] any joint moves when the arm holds still."""
    data = data_at(robot, model, start)
    mujoco.mj_step(model, data, nstep=round(seconds / robot.physics_step))
    return float(np.abs(arm_joints(robot, data) - start).max())


def camera_in_base(robot: Robot, mount: Mount, spec: mujoco.MjSpec | None = None) -> tuple[Vector, Matrix]:
    """Position (3,) [m] of the policy's camera in the frame of base_link, and its axes (3, 3): x, y, z as rows.

    Args:
        robot: carries the camera.
        mount: how it is set up.
        spec: the robot's scene, if something about it was changed.
    """
    model = (spec or robot.spec(mount)).compile()
    data = data_at(robot, model, mount.arm)
    base, camera = data.body("base_link"), data.cam(robot.camera)
    return in_base(data, camera.xpos), camera.xmat.reshape(3, 3).T @ base.xmat.reshape(3, 3)
