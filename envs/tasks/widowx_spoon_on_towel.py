"""Put the spoon on the towel (SIMPLER `PutSpoonOnTableClothInScene-v0`)."""

from envs.robots.widowx import TABLE_MOUNT
from envs.scenes.bridge_table import SCENE
from envs.tasks._bridge_table import CENTRE, MIXTURE, ROOM, SPOON_ON_TOWEL, SPOON_YAWS
from envs.tasks._layout import on_corners
from envs.tasks._put_on import PutOnTask

TASK = PutOnTask(
    name="widowx_spoon_on_towel",
    goal=SPOON_ON_TOWEL,
    scene=SCENE,
    mount=TABLE_MOUNT,
    layouts=on_corners(("spoon", "towel"), CENTRE, half_edges=(0.075,), yaws=[(yaw, 0.0) for yaw in SPOON_YAWS]),
    room=ROOM,
    mixture=MIXTURE,
)
