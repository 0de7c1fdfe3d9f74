"""Close the top drawer (SIMPLER `CloseTopDrawerCustomInScene-v0`)."""

from envs.tasks._drawer import DrawerTask

TASK = DrawerTask("google_robot_close_top_drawer", opens=False, drawers=("top",))
