"""Google's mobile manipulator as SIMPLER sets it up (ManiSkill2_real2sim `agents/configs/google_robot`).

The base stands still; the wheels and the two head joints are fixed.
"""

from pathlib import Path

from envs.robot import Actuator, MotionLimits, Robot

_ARM_JOINTS = (
    "joint_torso",
    "joint_shoulder",
    "joint_bicep",
    "joint_elbow",
    "joint_forearm",
    "joint_wrist",
    "joint_gripper",
)

# Gains identified by SIMPLER's authors from real trajectories; damping / stiffness is each joint's time constant.
_STIFFNESS = (1700.0, 1737.047, 979.976, 930.0, 1212.155, 432.965, 468.001)
_DAMPING = (1059.979, 1010.472, 767.280, 680.0, 674.995, 274.613, 340.533)
_FORCE_LIMIT = (300.0, 300.0, 100.0, 100.0, 100.0, 100.0, 100.0)

ROBOT = Robot(
    name="google_robot",
    mjcf=Path(__file__).with_name("google_robot.xml"),
    arm=tuple(map(Actuator, _ARM_JOINTS, _STIFFNESS, _DAMPING, _FORCE_LIMIT)),
    gripper=(
        Actuator("joint_finger_right", 200.0, 8.0, 60.0),
        Actuator("joint_finger_left", 200.0, 8.0, 60.0),
    ),
    fingers=(("link_finger_right", "link_finger_tip_right"), ("link_finger_left", "link_finger_tip_left")),
    finger_targets=(1.31, -0.0101),  # 0.01 rad beyond the joint range at both ends, as SIMPLER clips its targets
    ik_joint_weights=(1.0,) * 7,
    camera="overhead_camera",
    control_period=1 / 3,
    physics_step=1 / 513,
    top_down=((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
    workspace=((0.25, -0.60, 0.05), (1.00, 0.60, 1.25)),
    moves_from="measured",
    arm_motion=MotionLimits(velocity=1.5, acceleration=2.0, jerk=50.0),
    gripper_motion=MotionLimits(velocity=1.0, acceleration=7.0, jerk=50.0),
)

# Height of base_link above the floor [m]: the wheels' radius, and the floor of SIMPLER's scenes.
HEIGHT = 0.06205 + 0.017

# Arm joint positions at the start of every episode [rad].
START = (-0.26394572, 0.08319134, 0.50176115, 1.15685903, 0.02858367, 1.5925982, -1.08065296)
