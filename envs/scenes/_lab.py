"""The office behind the Google robot's furniture: partition wall with black uprights, concrete floor, clutter."""

import mujoco

from envs.scenes._room import BOX, add_bin, add_chair, add_frame, add_prop, add_room
from envs.scenes._surfaces import fabric, stone
from envs.textures import add_material

_WALL = -1.15  # [m]


def add_lab(spec: mujoco.MjSpec, *, floor: float, middle: float) -> None:
    """Add it all.

    Args:
        spec: scene.
        floor: its height [m].
        middle: y of the furniture that stands in front of it [m].
    """
    add_material(spec, "floor", stone((176, 160, 138), contrast=0.08), repeat=(6, 6), specular=0.2)
    add_room(spec, floor=floor, wall=_WALL, wall_image=fabric((168, 156, 142)))
    for y in (-1.0, 0.15, 1.3):
        add_frame(spec, _WALL + 0.03, middle + y, floor)
    add_prop(
        spec.worldbody,
        type=BOX,
        pos=[_WALL + 0.02, middle, floor + 0.05],
        size=[0.02, 4, 0.05],
        rgba=[0.1, 0.1, 0.1, 1],
    )
    add_bin(spec, -0.75, middle - 0.85, floor)
    add_chair(spec, -0.55, middle + 0.95, floor)
