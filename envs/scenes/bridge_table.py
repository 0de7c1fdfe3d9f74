"""The wooden table of the Bridge tasks."""

import mujoco

from envs.scene import Scene
from envs.scenes._room import add_box, add_chair, add_room, set_rendering
from envs.scenes._surfaces import wood
from envs.textures import add_material

_HEIGHT = 0.87  # [m], SIMPLER's `scene_table_height`
_CENTRE, _HALF = (-0.1, 0.0), (0.65, 0.75)  # of the table top [m]


def _build(spec: mujoco.MjSpec) -> None:
    set_rendering(spec, centre=(-0.1, 0.0, 0.95), shadows=0.8)
    add_room(spec, floor=0.0, wall=-1.6)
    add_chair(spec, -1.2, -0.95, floor=0.0)
    add_material(spec, "table", wood(), repeat=(2, 2), specular=0.15, shininess=0.2)
    (x, y), (half_x, half_y) = _CENTRE, _HALF
    top = {"name": "table", "material": "table"}
    add_box(spec.worldbody, (x - half_x, y - half_y, _HEIGHT - 0.04), (x + half_x, y + half_y, _HEIGHT), **top)
    for side_x in (-1, 1):
        for side_y in (-1, 1):
            leg_x, leg_y = x + side_x * (half_x - 0.06), y + side_y * (half_y - 0.06)
            leg = (leg_x - 0.03, leg_y - 0.03, 0.0), (leg_x + 0.03, leg_y + 0.03, _HEIGHT - 0.04)
            add_box(spec.worldbody, *leg, material="table")


SCENE = Scene("bridge_table", surface=_HEIGHT, area=((-0.45, -0.25), (0.0, 0.25)), build=_build)
