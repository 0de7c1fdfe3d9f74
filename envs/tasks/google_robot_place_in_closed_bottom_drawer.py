"""Open the bottom drawer and put an object into it (SIMPLER `PlaceIntoClosedBottomDrawerCustomInScene-v0`)."""

from envs.tasks._place_in_drawer import PlaceInDrawerTask

TASK = PlaceInDrawerTask("google_robot_place_in_closed_bottom_drawer", drawers=("bottom",))
