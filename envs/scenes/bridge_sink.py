"""The toy sink with a yellow drying basket beside its basin (SIMPLER `PutEggplantInBasketScene-v0`).

SIMPLER's sink is a collision shape under a photograph, and its target an invisible plate on the basket's floor. The
positions and heights here are those of the parts of its `data/custom/models/sink/collision.obj`.
"""

import mujoco

from envs.scene import HIDDEN, Scene
from envs.scenes._room import (
    BOX,
    CAPSULE,
    CYLINDER,
    add_box,
    add_chair,
    add_furniture,
    add_prop,
    add_room,
    set_rendering,
)
from envs.scenes._surfaces import wood
from envs.textures import add_material

_COUNTER = 0.92  # height of the table top [m]
_FLOOR = _COUNTER + 0.002  # height of the basin's floor [m]
_RIM = 0.977  # height of the sink's upper edge [m]
_WEST, _EAST, _SOUTH, _NORTH = -0.2945, -0.0255, -0.0665, 0.3265  # outer edges of the sink [m]
BASIN = ((-0.225, 0.11), (-0.045, 0.30))  # lowest and highest (x, y) of its floor [m]
_RECESS = ((-0.202, -0.036), (-0.048, 0.086))  # where the basket hangs

BASKET = (-0.125, 0.025, 0.932)  # SIMPLER's target plate, the basket's frame [m]
BASKET_HALF = (0.070, 0.054)  # of its inside along x and y [m]
BASKET_FLOOR, BASKET_RIM = -0.001, 0.050  # above its frame [m]
_WIRE = 0.002  # half its thickness [m]


def _build(spec: mujoco.MjSpec) -> None:
    set_rendering(spec, centre=(-0.15, 0.1, 0.95), shadows=0.8)
    add_room(spec, floor=0.0, wall=-1.3)
    add_chair(spec, -1.0, -0.75, floor=0.0)
    add_material(spec, "table", wood((196, 158, 104)), repeat=(2, 2), specular=0.15, shininess=0.2)
    spec.add_material(name="sink", rgba=[0.62, 0.78, 0.82, 1], specular=0.3, shininess=0.4)
    spec.add_material(name="basket", rgba=[0.93, 0.82, 0.30, 1], specular=0.3, shininess=0.4)
    spec.add_material(name="tap", rgba=[0.55, 0.56, 0.58, 1], specular=0.6, shininess=0.6)
    add_box(spec.worldbody, (-0.75, -0.75, _COUNTER - 0.04), (0.02, 0.75, _COUNTER), name="table", material="table")
    _add_sink(spec.worldbody.add_body(name="sink"))
    _add_tap(spec.worldbody.add_body(name="tap", pos=[-0.262, 0.225, _RIM]))
    _add_basket(spec.worldbody.add_body(name="basket", pos=list(BASKET)))


def _add_sink(body: mujoco.MjsBody) -> None:
    """A block with two openings: walls around them, the basin's floor, and a drain."""
    (west, south), (east, north) = BASIN
    (recess_west, recess_south), (recess_east, recess_north) = _RECESS
    for lowest, highest in (
        ((_WEST, _SOUTH), (west, _NORTH)),
        ((east, _SOUTH), (_EAST, _NORTH)),
        ((west, north), (east, _NORTH)),
        ((west, recess_north), (east, south)),
        ((west, _SOUTH), (east, recess_south)),
        ((west, recess_south), (recess_west, recess_north)),
        ((recess_east, recess_south), (east, recess_north)),
    ):
        add_box(body, (*lowest, _COUNTER), (*highest, _RIM), material="sink")
    add_box(body, (west, recess_south, _COUNTER), (east, north, _FLOOR), material="sink")
    middle = [(west + east) / 2, (south + north) / 2, _FLOOR]
    for radius, height, rgba in ((0.024, 0.0006, [0.52, 0.69, 0.74, 1]), (0.011, 0.0012, [0.05, 0.05, 0.06, 1])):
        add_prop(body, type=CYLINDER, pos=middle, size=[radius, height, 0], rgba=rgba)
    for x in (_WEST, _EAST):
        add_prop(
            body,
            type=CAPSULE,
            fromto=[x, _SOUTH, _RIM - 0.006, x, _NORTH, _RIM - 0.006],
            size=[0.006, 0, 0],
            material="sink",
        )
    for y in (_SOUTH, _NORTH):
        add_prop(
            body,
            type=CAPSULE,
            fromto=[_WEST, y, _RIM - 0.006, _EAST, y, _RIM - 0.006],
            size=[0.006, 0, 0],
            material="sink",
        )


def _add_tap(body: mujoco.MjsBody) -> None:
    tap = {"material": "tap"}
    add_furniture(body, type=BOX, pos=[0, 0, 0.008], size=[0.022, 0.045, 0.008], **tap)
    add_furniture(body, type=CYLINDER, pos=[0, 0, 0.055], size=[0.013, 0.045, 0], **tap)
    add_furniture(body, type=CAPSULE, fromto=[0, 0, 0.100, 0.035, 0, 0.118], size=[0.010, 0, 0], **tap)
    add_furniture(body, type=CAPSULE, fromto=[0, 0.022, 0.016, -0.005, 0.030, 0.070], size=[0.006, 0, 0], **tap)


def _add_basket(body: mujoco.MjsBody) -> None:
    """Wires that are seen, and thin walls that things meet; its centre of mass is where SIMPLER's target is."""
    body.explicitinertial, body.mass, body.ipos, body.inertia = True, 0.1, [0, 0, 0], [1e-4, 1e-4, 1e-4]
    walls = {"type": BOX, "group": HIDDEN}
    middle, half = (BASKET_FLOOR + BASKET_RIM) / 2, (BASKET_RIM - BASKET_FLOOR) / 2
    for side in (-1, 1):
        add_furniture(
            body,
            pos=[side * (BASKET_HALF[0] + _WIRE), 0, middle],
            size=[_WIRE, BASKET_HALF[1] + 2 * _WIRE, half],
            **walls,
        )
        add_furniture(
            body, pos=[0, side * (BASKET_HALF[1] + _WIRE), middle], size=[BASKET_HALF[0], _WIRE, half], **walls
        )
    add_furniture(body, pos=[0, 0, BASKET_FLOOR - 0.002], size=[BASKET_HALF[0], BASKET_HALF[1], 0.002], **walls)
    _add_wires(body)


def _add_wires(body: mujoco.MjsBody) -> None:
    x, y = BASKET_HALF[0] + _WIRE, BASKET_HALF[1] + _WIRE
    lower, upper = BASKET_FLOOR - _WIRE, BASKET_RIM - _WIRE
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    wire = {"type": BOX, "material": "basket"}
    for side in (-1, 1):
        add_prop(body, pos=[side * x, 0, upper], size=[0.005, y + 0.005, 0.0035], **wire)
        add_prop(body, pos=[0, side * y, upper], size=[x + 0.005, 0.005, 0.0035], **wire)
    for step in range(-3, 4):
        along_x, along_y = step * x / 3.5, step * y / 3.5
        add_prop(body, pos=[along_x, 0, lower], size=[_WIRE, y, _WIRE], **wire)
        add_prop(body, pos=[0, along_y, lower], size=[x, _WIRE, _WIRE], **wire)
        for side in (-1, 1):
            add_prop(body, pos=[along_x, side * y, middle], size=[_WIRE, _WIRE, half], **wire)
            add_prop(body, pos=[side * x, along_y, middle], size=[_WIRE, _WIRE, half], **wire)


SCENE = Scene("bridge_sink", surface=_FLOOR, area=((-0.60, -0.20), (-0.36, 0.35)), build=_build)
