"""Move one object near another (SIMPLER `MoveNearGoogleBakedTexInScene-v0`).

SIMPLER's v0 and v1 differ in which photographs are baked into the objects' textures and in their gloss; starts,
sizes, weights and success are equal. Here both have the same procedural objects, so this is `google_robot_move_near`.
"""

from envs.tasks._move_near import MoveNearTask

TASK = MoveNearTask("google_robot_move_near_v0")
