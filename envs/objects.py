"""Things on the table: shape, weight, look, and where a gripper takes hold of them."""

from collections.abc import Callable
from dataclasses import dataclass

import mujoco

# Bit 1 is the robot, bit 2 everything else: the robot meets objects, objects meet each other and the table.
OBJECT_COLLISION = {"contype": 2, "conaffinity": 3}
VISUAL_ONLY = {"contype": 0, "conaffinity": 0, "group": 1, "mass": 0.0}
OBJECT_FRICTION = [0.5, 0.005, 0.0001]  # SIMPLER's objects: 0.5


@dataclass(frozen=True)
class Grasp:
    """How a top-down gripper holds an object.

    Attributes:
        offset: (x, y) of the grasp point from the object's frame origin, in its frame [m].
        height: of the TCP above the surface the object lies on [m].
        yaw: of the closing direction from the object's y axis [rad].
    """

    offset: tuple[float, float]
    height: float
    yaw: float = 0.0


@dataclass(frozen=True)
class ObjectModel:
    """One kind of object.

    Attributes:
        name: body name in the scene.
        size: (x, y, z) full size of the bounding box that SIMPLER's success conditions use [m].
        rest_height: of the frame origin above the surface when it lies still [m].
        build: adds the geoms to a body.
        grasp: None for what is only a place to put things.
    """

    name: str
    size: tuple[float, float, float]
    rest_height: float
    build: Callable[[mujoco.MjsBody], None]
    grasp: Grasp | None = None

    def add_to(self, scene: mujoco.MjSpec) -> None:
        """Add the object as a free body."""
        body = scene.worldbody.add_body(name=self.name)
        body.add_freejoint()
        self.build(body)


def add_solid(body: mujoco.MjsBody, *, density: float, **geom: object) -> None:
    """Add a geom that collides and weighs; keyword arguments as in `MjsBody.add_geom`."""
    body.add_geom(friction=OBJECT_FRICTION, density=density, **OBJECT_COLLISION, **geom)


def add_visual(body: mujoco.MjsBody, **geom: object) -> None:
    """Add a geom that is only seen."""
    body.add_geom(**VISUAL_ONLY, **geom)


_GREEN_PLASTIC = [0.10, 0.42, 0.22, 1.0]
_INVISIBLE = [0.0, 0.0, 0.0, 0.0]


def _spoon(body: mujoco.MjsBody) -> None:
    box, ellipsoid, capsule = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID, mujoco.mjtGeom.mjGEOM_CAPSULE
    # Boxes carry the contacts so that the spoon neither rolls nor rocks; rounded shapes are what the camera sees.
    add_solid(body, density=1200, type=box, pos=[0.050, 0, -0.002], size=[0.020, 0.0173, 0.005], rgba=_INVISIBLE)
    add_solid(body, density=1200, type=box, pos=[-0.020, 0, 0.002], size=[0.050, 0.0075, 0.009], rgba=_INVISIBLE)
    add_visual(body, type=ellipsoid, pos=[0.048, 0, 0.000], size=[0.022, 0.0173, 0.0075], rgba=_GREEN_PLASTIC)
    handle = {"type": capsule, "size": [0.0085, 0, 0], "rgba": _GREEN_PLASTIC}
    add_visual(body, fromto=[-0.0615, 0, 0.0015, 0.034, 0, 0.0015], **handle)


def _towel(body: mujoco.MjsBody) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    cloth, hem = [0.33, 0.42, 0.70, 1.0], [0.86, 0.88, 0.93, 1.0]
    add_solid(body, density=330, type=box, size=[0.05, 0.05, 0.005], rgba=cloth)
    for side in (-1, 1):
        add_visual(body, type=box, pos=[side * 0.040, 0, 0.0051], size=[0.004, 0.0499, 0.0002], rgba=hem)
        add_visual(body, type=box, pos=[0, side * 0.040, 0.0051], size=[0.0499, 0.004, 0.0002], rgba=hem)


# Sizes and densities: ManiSkill2_real2sim `data/custom/info_bridge_custom_v0.json`.
SPOON = ObjectModel(
    name="spoon",
    size=(0.14, 0.0346, 0.026),
    rest_height=0.007,
    build=_spoon,
    grasp=Grasp(offset=(0.004, 0.0), height=0.022),
)
TOWEL = ObjectModel(name="towel", size=(0.10, 0.10, 0.01), rest_height=0.005, build=_towel)
