"""Open the middle drawer and put an object into it (SIMPLER `PlaceIntoClosedMiddleDrawerCustomInScene-v0`)."""

from envs.tasks._place_in_drawer import PlaceInDrawerTask

TASK = PlaceInDrawerTask("google_robot_place_in_closed_middle_drawer", drawers=("middle",))
