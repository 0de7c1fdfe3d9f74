"""Pick an opened coke can that stands (`GraspSingleOpenedCokeCanInScene-v0`, `upright`)."""

from envs.tasks._pick import PickTask

TASK = PickTask("google_robot_pick_standing_coke_can", objects=("opened_coke_can",), orientations=("upright",))
