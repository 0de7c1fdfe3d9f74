"""Google's robot is the one that SIMPLER identified, and its fingers hold what its tasks ask for."""

import math
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import pytest

from envs.control import EndEffectorController
from envs.geometry import UPRIGHT, PlanarPose, Vector, matrix_from_rotation_vector
from envs.kinematics import ArmKinematics
from envs.robot import Actuator, Mount
from envs.robots.google_robot import HEIGHT, ROBOT, START
from tests.envs.arms import arm_model, camera_in_base, data_at, in_base, sag, step_response

MOUNT = Mount(base=PlanarPose(0.35, 0.20, math.pi), height=HEIGHT, arm=START)
ORIGIN_HEIGHT = 0.06205  # [m] of base_link when the listed positions were computed
GRIPPER_AT_START, TCP_AT_START = (0.39473, -0.237386, 1.180221), (0.43933, -0.218432, 1.023962)
CAMERA_BY_TILT = {  # head tilt [rad] -> camera position and forward direction in base_link
    0.7851361: ((0.14599, -0.000417, 1.213358), (0.707292, -0.002023, -0.706919)),
    0.9351361: ((0.134078, -0.000383, 1.203105), (0.5937, -0.0017, -0.8047)),
    0.6651361: ((0.154332, -0.000441, 1.222772), (0.7868, -0.0023, -0.6172)),
}
TABLE = 0.87  # [m]
SOLID: dict[str, Any] = {"contype": 2, "conaffinity": 3, "friction": [0.5, 0.005, 0.0001]}
BOX, CYLINDER, SPHERE = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_SPHERE


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return arm_model(ROBOT, MOUNT)


def test_links_are_where_the_kinematics_say(model: mujoco.MjModel) -> None:
    data = data_at(ROBOT, model, START)
    raised = np.array([0.0, 0.0, ORIGIN_HEIGHT])
    assert np.allclose(in_base(data, data.body("link_gripper").xpos) + raised, GRIPPER_AT_START, atol=1e-4)
    assert np.allclose(in_base(data, data.site("tcp").xpos) + raised, TCP_AT_START, atol=1e-4)


@pytest.mark.parametrize("tilt", CAMERA_BY_TILT)
def test_camera_looks_where_the_head_is_tilted(tilt: float) -> None:
    spec = ROBOT.spec(MOUNT)
    spec.body("head_tilt").quat = [math.cos(tilt / 2), 0.0, math.sin(tilt / 2), 0.0]
    position, axes = camera_in_base(ROBOT, MOUNT, spec)
    expected_position, forward = CAMERA_BY_TILT[tilt]
    assert np.allclose(position, expected_position, atol=1e-4)
    assert np.allclose(-axes[2], forward, atol=1e-4)


@pytest.mark.parametrize("servo", ROBOT.arm, ids=lambda servo: servo.joint)
def test_step_has_the_identified_time_constant(model: mujoco.MjModel, servo: Actuator) -> None:
    time = step_response(ROBOT, model, START, servo.joint)
    assert time == pytest.approx(servo.damping / servo.stiffness, rel=0.05)


def test_gravity_is_compensated(model: mujoco.MjModel) -> None:
    assert sag(ROBOT, model, START) < 1e-4


@dataclass(frozen=True)
class Thing:
    """What SIMPLER's tasks grasp: shape [m], density [kg/m3], how high its centre stands [m], how it lies."""

    kind: mujoco.mjtGeom
    size: tuple[float, float, float]
    density: float
    height: float
    quaternion: tuple[float, float, float, float] = UPRIGHT


THINGS = {
    "standing can": Thing(CYLINDER, (0.033, 0.0615, 0), 50.0, 0.062),
    "lying can": Thing(CYLINDER, (0.033, 0.0615, 0), 50.0, 0.0335, (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)),
    "apple": Thing(SPHERE, (0.04, 0, 0), 200.0, 0.0405),
    "sponge": Thing(BOX, (0.05, 0.035, 0.018), 150.0, 0.0185),
}


def grasp_scene(thing: Thing) -> tuple[EndEffectorController, mujoco.MjData]:
    """A thing on a table, with the open gripper around it."""
    spec = ROBOT.spec(MOUNT)
    spec.option.timestep = ROBOT.physics_step
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.worldbody.add_geom(type=BOX, pos=[-0.25, 0.2, TABLE - 0.02], size=[0.3, 0.4, 0.02], **SOLID)
    body = spec.worldbody.add_body(name="thing", pos=[-0.2, 0.2, TABLE + thing.height])
    body.add_freejoint()
    body.add_geom(type=thing.kind, size=thing.size, density=thing.density, quat=thing.quaternion, **SOLID)
    model = spec.compile()
    data = data_at(ROBOT, model, START)
    leaning = matrix_from_rotation_vector(np.array([0.0, -0.35, 0.0])) @ np.array(ROBOT.top_down)
    place = in_base(data, data.body("thing").xpos)
    joints, reached = ArmKinematics(ROBOT, model).inverse(place, leaning, np.array(START))
    assert reached
    data = data_at(ROBOT, model, tuple(joints))
    controller = EndEffectorController(ROBOT, model)
    controller.reset(data)
    return controller, data


def grip_and_lift(controller: EndEffectorController, data: mujoco.MjData) -> tuple[float, float]:
    """Close, lift for a while; how far the thing went up [m] and how far it slipped in the tool [m]."""

    def offset() -> Vector:
        position, rotation = controller.tool_pose(data)
        return rotation.T @ (in_base(data, data.body("thing").xpos) - position)

    for _ in range(6):
        controller.command(data, np.array([0, 0, 0, 0, 0, 0, -1.0]))
        controller.advance(data)
    start, held = data.body("thing").xpos[2], offset()
    for _ in range(15):
        controller.command(data, np.array([0, 0, 0.05, 0, 0, 0, -1.0]))
        controller.advance(data)
    return float(data.body("thing").xpos[2] - start), float(np.linalg.norm(offset() - held))


@pytest.mark.parametrize("name", THINGS)
def test_fingers_hold_what_the_tasks_ask_for(name: str) -> None:
    lifted, slipped = grip_and_lift(*grasp_scene(THINGS[name]))
    assert lifted > 0.1
    assert slipped < 0.01


def test_closed_fingers_meet_and_open_fingers_part(model: mujoco.MjModel) -> None:
    data = data_at(ROBOT, model, START)
    controller = EndEffectorController(ROBOT, model)
    controller.reset(data)

    def gap_after(gripper: float) -> float:
        """Between the fingertips [m]."""
        for _ in range(6):
            controller.command(data, np.array([0, 0, 0, 0, 0, 0, gripper]))
            controller.advance(data)
        right, left = (model.geom(f"finger_tip_{side}").id for side in ("right", "left"))
        return mujoco.mj_geomDistance(model, data, right, left, 1.0, None)

    assert abs(gap_after(-1.0)) < 0.001
    assert gap_after(1.0) > 0.12
