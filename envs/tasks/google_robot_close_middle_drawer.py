"""Close the middle drawer (SIMPLER `CloseMiddleDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_close_middle_drawer", opens=False, drawers=("middle",))
