"""Open one of the three drawers (SIMPLER `OpenDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_open_drawer", opens=True)
