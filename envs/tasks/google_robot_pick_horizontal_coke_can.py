"""Pick an opened coke can that lies across the image (`GraspSingleOpenedCokeCanInScene-v0`, `lr_switch`)."""

from envs.tasks._pick import PickTask

TASK = PickTask("google_robot_pick_horizontal_coke_can", objects=("opened_coke_can",), orientations=("horizontal",))
