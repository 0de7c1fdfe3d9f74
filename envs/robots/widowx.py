"""WidowX 250 S as SIMPLER sets it up for the Bridge tasks (SimplerEnv, ManiSkill2_real2sim `agents/configs/widowx`)."""

import math
from pathlib import Path

from envs.geometry import PlanarPose
from envs.robot import Actuator, CameraPose, Mount, Robot

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
    fingers=(("left_finger_link",), ("right_finger_link",)),
    finger_targets=(0.014, 0.038),  # 1 mm beyond the joint range at both ends, as SIMPLER's gripper controller
    # Near the base the wrist passes 0, where forearm_roll and wrist_rotate are one axis: moving forearm_roll
    # reluctantly keeps the tool from being thrown sideways there.
    ik_joint_weights=(1.0, 1.0, 1.0, 0.05, 1.0, 1.0),
    camera="3rd_view_camera",
    control_period=0.2,
    physics_step=0.002,
    top_down=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)),
    workspace=((0.10, -0.30, _LOWEST_TCP), (0.48, 0.30, 0.40)),
)

# In front of the table of the Bridge tasks.
TABLE_MOUNT = Mount(
    base=PlanarPose(0.147, 0.028, math.pi),
    height=0.870,
    arm=(-0.01840777, 0.0398835, 0.22242722, -0.00460194, 1.36524296, 0.00153398),
)

# In front of the sink.
SINK_MOUNT = Mount(
    base=PlanarPose(0.127, 0.06, math.pi),
    height=0.85,
    arm=(-0.2600599, -0.12875618, 0.04461369, -0.00652761, 1.7033415, -0.26983038),
    camera=CameraPose((-0.003, -0.21, 0.39), (0.7722972, 0.32975701, -0.21321597, -0.49935588)),
)
