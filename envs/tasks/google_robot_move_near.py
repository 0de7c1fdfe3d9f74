"""Move one object near another (SIMPLER `MoveNearGoogleBakedTexInScene-v1`)."""

from envs.tasks._move_near import MoveNearTask

TASK = MoveNearTask("google_robot_move_near")
