"""Open the bottom drawer (SIMPLER `OpenBottomDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_open_bottom_drawer", opens=True, drawers=("bottom",))
