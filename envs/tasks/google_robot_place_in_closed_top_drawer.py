"""Open the top drawer and put an object into it (SIMPLER `PlaceIntoClosedTopDrawerCustomInScene-v0`)."""

from envs.tasks._place_in_drawer import PlaceInDrawerTask

TASK = PlaceInDrawerTask("google_robot_place_in_closed_top_drawer", drawers=("top",))
