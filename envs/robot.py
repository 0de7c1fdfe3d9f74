"""A robot arm as the controller and the tasks see it: joints, gains, tool frame, camera and control rate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mujoco

from envs.geometry import PlanarPose, Quaternion


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
class MotionLimits:
    """How fast every joint of a planned path may move: [rad/s], [rad/s^2], [rad/s^3]."""

    velocity: float
    acceleration: float
    jerk: float


@dataclass(frozen=True)
class CameraPose:
    """Where a camera is on the body that carries it: position [m] and rotation (w x y z) of its OpenGL frame."""

    position: tuple[float, float, float]
    quaternion: Quaternion


@dataclass(frozen=True)
class Mount:
    """How a robot is set up in front of a scene.

    Attributes:
        base: where base_link stands unless a start says otherwise.
        height: of base_link above the floor [m].
        arm: arm joint positions at the start of an episode [rad].
        camera: where the policy's camera looks from, None for where the robot's model has it.
    """

    base: PlanarPose
    height: float
    arm: tuple[float, ...]
    camera: CameraPose | None = None


@dataclass(frozen=True)
class Robot:
    """One arm with a two-finger gripper.

    Attributes:
        name: for example `widowx`.
        mjcf: model file; its root body is `base_link`, its tool frame the site `tcp`.
        arm: servos of the arm joints, base to tool.
        gripper: servos of the fingers.
        fingers: bodies of each finger, in the order of `gripper`.
        finger_targets: (closed, open) finger joint targets [m or rad].
        ik_joint_weights: how willingly inverse kinematics moves each arm joint, 1 = freely.
        moves_from: what an action's motion is added to: the previous `target` or the `measured` tool pose.
        arm_motion: limits of the planned path to the arm's joint targets; None sends the servos there at once.
        gripper_motion: the same for the fingers.
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
    fingers: tuple[tuple[str, ...], tuple[str, ...]]
    finger_targets: tuple[float, float]
    ik_joint_weights: tuple[float, ...]
    camera: str
    control_period: float
    physics_step: float
    top_down: tuple[tuple[float, float, float], ...]
    workspace: tuple[tuple[float, float, float], tuple[float, float, float]]
    moves_from: Literal["target", "measured"] = "target"
    arm_motion: MotionLimits | None = None
    gripper_motion: MotionLimits | None = None

    @property
    def substeps(self) -> int:
        """Physics steps in one control step."""
        return round(self.control_period / self.physics_step)

    def spec(self, mount: Mount) -> mujoco.MjSpec:
        """A new scene that holds this arm with its servos, set up as the mount says."""
        spec = mujoco.MjSpec.from_file(str(self.mjcf))
        for servo in (*self.arm, *self.gripper):
            _add_servo(spec, servo)
        base = spec.body("base_link")
        base.pos = [mount.base.x, mount.base.y, mount.height]
        base.quat = mount.base.quaternion
        if mount.camera is not None:
            camera = spec.camera(self.camera)
            camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT  # else the file's axes win over quat
            camera.pos, camera.quat = mount.camera.position, mount.camera.quaternion
        return spec


def _add_servo(spec: mujoco.MjSpec, servo: Actuator) -> None:
    # Without its force limit, which the controller keeps: MuJoCo integrates a limited actuator's damping explicitly
    # while it is at the limit, and light links would bounce between both limits.
    actuator = spec.add_actuator(
        name=servo.joint,
        target=servo.joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gaintype=mujoco.mjtGain.mjGAIN_FIXED,
        biastype=mujoco.mjtBias.mjBIAS_AFFINE,
    )
    actuator.gainprm[0] = servo.stiffness
    actuator.biasprm[:3] = [0.0, -servo.stiffness, -servo.damping]
