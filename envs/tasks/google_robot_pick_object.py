"""Pick one of 14 objects (SIMPLER `GraspSingleRandomObjectInScene-v0`).

SIMPLER has no grid for it and draws object, orientation and place at random. The official starts here are every object
in every orientation on three places of the coke can's grid: one near, one in the middle, one far.
"""

from envs.tasks._pick import GRID, OBJECTS, PickTask

TASK = PickTask("google_robot_pick_object", objects=OBJECTS, places=(GRID[21], GRID[12], GRID[3]))
