"""The counter of the coke-can and move-near tasks: the drawer cabinet, shut, with its stone top at table height."""

import mujoco

from envs.scene import SCENERY, Scene
from envs.scenes._cabinet import CABINET_SIZE, add_front, add_handle, add_materials
from envs.scenes._lab import add_lab
from envs.scenes._room import add_box, set_rendering

_HEIGHT = 0.87  # [m], SIMPLER's `scene_table_height`
_CENTRE = (-0.295, 0.21)  # [m], of SIMPLER's `dummy_tabletop`
_FLOOR = 0.017  # [m], under the robot's wheels


def _build(spec: mujoco.MjSpec) -> None:
    set_rendering(spec, centre=(-0.3, 0.21, 0.4), shadows=1.5)
    add_lab(spec, floor=_FLOOR, middle=_CENTRE[1])
    add_materials(spec)
    body = spec.worldbody.add_body(name="counter", pos=[*_CENTRE, 0.0])
    half_x, half_y = CABINET_SIZE[0] / 2, CABINET_SIZE[1] / 2
    add_box(body, (-half_x, -half_y, _HEIGHT - 0.02), (half_x, half_y, _HEIGHT), name="table", material="table")
    add_box(body, (-half_x, -half_y, _FLOOR), (half_x - 0.03, half_y, _HEIGHT - 0.02), material="cabinet")
    for height in (0.673, 0.428, 0.183):
        drawer = body.add_body(pos=[0, 0, height])
        add_front(drawer, group=SCENERY)
        add_handle(drawer, group=SCENERY)


SCENE = Scene("google_table", surface=_HEIGHT, area=((-0.56, -0.05), (-0.10, 0.47)), build=_build)
