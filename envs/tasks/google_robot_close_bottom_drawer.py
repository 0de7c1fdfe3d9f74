"""Close the bottom drawer (SIMPLER `CloseBottomDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_close_bottom_drawer", opens=False, drawers=("bottom",))
