"""WidowX 250 S as SIMPLER sets it up for the Bridge tasks (SimplerEnv, ManiSkill2_real2sim `agents/configs/widowx`)."""

import math
from pathlib import Path

from envs.robot import Actuator, Robot

_ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")

# Gains identified by SIMPLER's authors from real trajectories; damping / stiffness is each joint's time constant.
_STIFFNESS = (1169.789, 730.0, 808.460, 1229.130, 1272.276, 1056.333)
_DAMPING = (330.0, 180.0, 152.120, 309.622, 201.050, 269.515)
_FORCE_LIMIT = (200.0, 200.0, 100.0, 100.0, 100.0, 100.0)

# The tool reaches 17 mm past the TCP, so lower targets would press the fingertips into the table.
_LOWEST_TCP = 0.012

ROBOT = Robot(
    name="widowx",
    mjcf=Path(__file__).with_name("widowx.xml"),
    arm=tuple(map(Actuator, _ARM_JOINTS, _STIFFNESS, _DAMPING, _FORCE_LIMIT)),
    gripper=(Actuator("left_finger", 1000.0, 200.0, 60.0), Actuator("right_finger", 1000.0, 200.0, 60.0)),
    finger_targets=(0.014, 0.038),  # 1 mm beyond the joint range at both ends, as SIMPLER's gripper controller
    initial_arm=(-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398),
    # Near the base the wrist passes 0, where forearm_roll and wrist_rotate are one axis: moving forearm_roll
    # reluctantly keeps the tool from being thrown sideways there.
    ik_joint_weights=(1.0, 1.0, 1.0, 0.05, 1.0, 1.0),
    base_position=(0.147, 0.028, 0.870),
    base_yaw=math.pi,
    camera="3rd_view_camera",
    control_period=0.2,
    physics_step=0.002,
    top_down=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)),
    workspace=((0.10, -0.30, _LOWEST_TCP), (0.48, 0.30, 0.40)),
)
