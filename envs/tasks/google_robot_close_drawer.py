"""Close one of the three drawers (SIMPLER `CloseDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_close_drawer", opens=False)
