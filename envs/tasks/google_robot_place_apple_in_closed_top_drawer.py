"""Open the top drawer and put the apple into it (SIMPLER `PlaceIntoClosedTopDrawerCustomInScene-v0` with the apple)."""

from envs.tasks._place_in_drawer import PlaceInDrawerTask

TASK = PlaceInDrawerTask("google_robot_place_apple_in_closed_top_drawer", drawers=("top",), objects=("apple",))
