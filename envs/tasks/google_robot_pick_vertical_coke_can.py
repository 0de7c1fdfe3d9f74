"""Pick an opened can that points away from the camera (`GraspSingleOpenedCokeCanInScene-v0`, `laid_vertically`)."""

from envs.tasks._pick import PickTask

TASK = PickTask("google_robot_pick_vertical_coke_can", objects=("opened_coke_can",), orientations=("vertical",))
