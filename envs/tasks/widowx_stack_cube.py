"""Stack the green cube on the yellow cube (SIMPLER `StackGreenCubeOnYellowCubeBakedTexInScene-v0`)."""

from envs.robots.widowx import TABLE_MOUNT
from envs.scenes.bridge_table import SCENE
from envs.tasks._bridge_table import CENTRE, GREEN_ON_YELLOW, MIXTURE, ROOM
from envs.tasks._layout import on_corners
from envs.tasks._put_on import PutOnTask

TASK = PutOnTask(
    name="widowx_stack_cube",
    goal=GREEN_ON_YELLOW,
    scene=SCENE,
    mount=TABLE_MOUNT,
    layouts=on_corners(("green_cube", "yellow_cube"), CENTRE, half_edges=(0.05, 0.10), yaws=[(0.0, 0.0)]),
    room=ROOM,
    mixture=MIXTURE,
)
