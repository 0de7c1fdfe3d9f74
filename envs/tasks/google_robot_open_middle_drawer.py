"""Open the middle drawer (SIMPLER `OpenMiddleDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_open_middle_drawer", opens=True, drawers=("middle",))
