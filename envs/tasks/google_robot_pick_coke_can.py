"""Pick an opened coke can that stands or lies (SIMPLER `GraspSingleOpenedCokeCanInScene-v0`).

SIMPLER draws the orientation at random; here official starts 0-24 lie horizontally, 25-49 vertically, 50-74 stand.
"""

from envs.tasks._pick import PickTask

TASK = PickTask("google_robot_pick_coke_can", objects=("opened_coke_can",))
