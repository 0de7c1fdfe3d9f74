"""A robot arm as the controller and the tasks see it: joints, gains, tool frame, camera and control rate."""

from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np


@dataclass(frozen=True)
class Actuator:
    """Position servo of one joint: force = stiffness * (target - q) - damping * qdot, within +-force_limit.

    Units: [N m/rad], [N m s/rad] and [N m] for a hinge, [N/m], [N s/m] and [N] for a slide.
    """

    joint: str
    stiffness: float
    damping: float
    force_limit: float


@dataclass(frozen=True)
class Robot:
    """One arm with a two-finger gripper.

    Attributes:
        name: for example `widowx`.
        mjcf: model file; its root body is `base_link`, its tool frame the site `tcp`.
        arm: servos of the arm joints, base to tool.
        gripper: servos of the fingers.
        finger_targets: (closed, open) finger joint targets [m].
        initial_arm: arm joint positions at the start of an episode [rad].
        ik_joint_weights: how willingly inverse kinematics moves each arm joint, 1 = freely.
        base_position: of base_link in the world [m].
        base_yaw: of base_link in the world [rad].
        camera: name of the policy's camera.
        control_period: [s] between actions.
        physics_step: [s].
        top_down: (3, 3) tool rotation in the base frame that counts as roll = pitch = yaw = 0.
        workspace: ((x, y, z) lowest, highest) tool targets in the base frame [m].
    """

    name: str
    mjcf: Path
    arm: tuple[Actuator, ...]
    gripper: tuple[Actuator, ...]
    finger_targets: tuple[float, float]
    initial_arm: tuple[float, ...]
    ik_joint_weights: tuple[float, ...]
    base_position: tuple[float, float, float]
    base_yaw: float
    camera: str
    control_period: float
    physics_step: float
    top_down: tuple[tuple[float, float, float], ...]
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]]

    @property
    def substeps(self) -> int:
        """Physics steps in one control step."""
        return round(self.control_period / self.physics_step)

    def scene(self) -> mujoco.MjSpec:
        """A new scene that holds this arm with its servos, base_link at its place in the world."""
        scene = mujoco.MjSpec.from_file(str(self.mjcf))
        for servo in (*self.arm, *self.gripper):
            _add_servo(scene, servo)
        base = scene.body("base_link")
        base.pos = self.base_position
        base.quat = [np.cos(self.base_yaw / 2), 0.0, 0.0, np.sin(self.base_yaw / 2)]
        return scene


def _add_servo(spec: mujoco.MjSpec, servo: Actuator) -> None:
    actuator = spec.add_actuator(
        name=servo.joint,
        target=servo.joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        forcelimited=True,
        forcerange=[-servo.force_limit, servo.force_limit],
    )
    actuator.gainprm[0] = servo.stiffness
    actuator.biasprm[:3] = [0.0, -servo.stiffness, -servo.damping]
