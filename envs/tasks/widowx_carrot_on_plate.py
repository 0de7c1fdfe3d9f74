"""Put the carrot on the plate (SIMPLER `PutCarrotOnPlateInScene-v0`)."""

from envs.robots.widowx import TABLE_MOUNT
from envs.scenes.bridge_table import SCENE
from envs.tasks._bridge_table import CARROT_ON_PLATE, CARROT_YAWS, CENTRE, MIXTURE, ROOM
from envs.tasks._layout import on_corners
from envs.tasks._put_on import PutOnTask

TASK = PutOnTask(
    name="widowx_carrot_on_plate",
    goal=CARROT_ON_PLATE,
    scene=SCENE,
    mount=TABLE_MOUNT,
    layouts=on_corners(("carrot", "plate"), CENTRE, half_edges=(0.075,), yaws=[(yaw, 0.0) for yaw in CARROT_YAWS]),
    room=ROOM,
    mixture=MIXTURE,
)
