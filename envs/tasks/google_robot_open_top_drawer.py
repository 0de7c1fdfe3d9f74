"""Open the top drawer (SIMPLER `OpenTopDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_open_top_drawer", opens=True, drawers=("top",))
