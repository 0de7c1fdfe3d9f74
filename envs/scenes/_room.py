"""What the scenes share: rendering quality, light, a floor, a wall, and things far away."""

import mujoco
import numpy as np

from envs.object_model import OBJECT_FRICTION, VISUAL_ONLY
from envs.scene import SCENERY
from envs.scenes._surfaces import fabric, stone
from envs.textures import Image, add_material

BOX, CYLINDER, CAPSULE, PLANE = (
    mujoco.mjtGeom.mjGEOM_BOX,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_PLANE,
)
# Robot and objects hit furniture; parts of furniture never hit each other, so drawers cannot jam.
_COLLISION = {"contype": 0, "conaffinity": 3, "friction": OBJECT_FRICTION}
_DOWNWARDS = np.array([-0.25, -0.3, -1.0])  # direction of the light, not quite straight
_WALL_HEIGHT = 1.35  # [m], above every camera's view and below slanting light
_GRID = 1.0  # [m] between the lines of vertices into which planes are cut, each of which costs time
_FACING_X = [0.5, 0.5, 0.5, 0.5]  # turns a plane's z axis to the world's x axis, its y axis upwards

Triple = tuple[float, float, float]


def add_box(body: mujoco.MjsBody, lowest: Triple, highest: Triple, **geom: object) -> None:
    """Add a solid box between two corners [m]; scenery unless `group` says otherwise."""
    centre = [(low + high) / 2 for low, high in zip(lowest, highest, strict=True)]
    half = [(high - low) / 2 for low, high in zip(lowest, highest, strict=True)]
    add_furniture(body, type=BOX, pos=centre, size=half, **geom)


def add_furniture(body: mujoco.MjsBody, **geom: object) -> None:
    """Add a geom that robot and objects hit; scenery unless `group` says otherwise."""
    body.add_geom(**{"group": SCENERY, **_COLLISION, **geom})


def add_prop(body: mujoco.MjsBody, **geom: object) -> None:
    """Add a geom of the scenery that is only seen."""
    body.add_geom(group=SCENERY, **VISUAL_ONLY, **geom)


def set_rendering(spec: mujoco.MjSpec, centre: Triple, shadows: float) -> None:
    """Set rendering quality, and light: a ceiling lamp that casts shadows, which the camera's own headlight fills.

    Args:
        spec: scene.
        centre: of what the cameras see [m].
        shadows: how far from there shadows fall [m]; the further, the coarser. Beyond, surfaces look flecked.
    """
    # On a CPU renderer the shadow map is the cost: 4096 with 4x anti-aliasing is six times slower than this.
    quality, visual = spec.visual.quality, spec.visual
    quality.shadowsize, quality.offsamples = 768, 0
    quality.numquads, quality.numslices, quality.numstacks = 2, 16, 8
    spec.stat.center, spec.stat.extent = centre, 1.0
    visual.map.znear, visual.map.zfar, visual.map.shadowclip = 0.01, 8.0, shadows  # in units of the extent
    visual.headlight.ambient, visual.headlight.diffuse = [0.36, 0.36, 0.38], [0.28, 0.28, 0.28]
    visual.headlight.specular = [0.1, 0.1, 0.1]
    spec.worldbody.add_light(
        name="ceiling",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=np.array(centre) - 1.6 * _DOWNWARDS,
        dir=_DOWNWARDS,
        diffuse=[0.62, 0.61, 0.58],
        specular=[0.25, 0.25, 0.25],
        castshadow=True,
    )


def add_room(spec: mujoco.MjSpec, *, floor: float, wall: float, wall_image: Image | None = None) -> None:
    """Add a floor and, in front of the robot, a partition wall across the whole view.

    Args:
        spec: scene.
        floor: its height [m].
        wall: its x [m].
        wall_image: (height, width, 3) one square metre of it.
    """
    world = spec.worldbody
    add_material(spec, "floor", stone((92, 87, 84)), repeat=(6, 6))
    add_material(spec, "wall", fabric((184, 189, 189)) if wall_image is None else wall_image, repeat=(8, 2))
    add_prop(world, type=PLANE, pos=[0, 0, floor], size=[4, 4, _GRID], material="floor")
    half = _WALL_HEIGHT / 2
    add_prop(world, type=PLANE, pos=[wall, 0, floor + half], size=[4, half, _GRID], quat=_FACING_X, material="wall")


def add_chair(spec: mujoco.MjSpec, x: float, y: float, floor: float) -> None:
    """Add an office chair standing at (x, y) [m]."""
    world, dark = spec.worldbody, [0.12, 0.12, 0.13, 1]
    add_prop(world, type=CYLINDER, pos=[x, y, floor + 0.46], size=[0.22, 0.035, 0], rgba=[0.16, 0.19, 0.25, 1])
    add_prop(world, type=BOX, pos=[x - 0.20, y, floor + 0.78], size=[0.03, 0.20, 0.24], rgba=[0.16, 0.19, 0.25, 1])
    add_prop(world, type=CYLINDER, pos=[x, y, floor + 0.25], size=[0.03, 0.19, 0], rgba=dark)
    for dx, dy in ((0.24, 0.0), (-0.12, 0.21), (-0.12, -0.21)):
        ends = [x, y, floor + 0.08, x + dx, y + dy, floor + 0.04]
        add_prop(world, type=CAPSULE, fromto=ends, size=[0.025, 0, 0], rgba=dark)


def add_bin(spec: mujoco.MjSpec, x: float, y: float, floor: float) -> None:
    """Add an open plastic box with some packets in it at (x, y) [m]."""
    world, plastic = spec.worldbody, [0.78, 0.82, 0.86, 1]
    for dx, dy, half in (
        (0.15, 0, (0.006, 0.2)),
        (-0.15, 0, (0.006, 0.2)),
        (0, 0.2, (0.156, 0.006)),
        (0, -0.2, (0.156, 0.006)),
    ):
        add_prop(world, type=BOX, pos=[x + dx, y + dy, floor + 0.12], size=[*half, 0.12], rgba=plastic)
    add_prop(world, type=BOX, pos=[x, y, floor + 0.01], size=[0.15, 0.2, 0.01], rgba=plastic)
    packets = (
        (-0.06, -0.1, [0.78, 0.20, 0.16, 1]),
        (0.05, 0.02, [0.93, 0.84, 0.68, 1]),
        (-0.03, 0.11, [0.36, 0.62, 0.25, 1]),
    )
    for dx, dy, rgba in packets:
        turned = {"euler": [0.4 * dx / 0.06, 0.5, dy / 0.1]}
        add_prop(world, type=BOX, pos=[x + dx, y + dy, floor + 0.18], size=[0.07, 0.05, 0.03], rgba=rgba, **turned)


def add_frame(spec: mujoco.MjSpec, x: float, y: float, floor: float, height: float = _WALL_HEIGHT) -> None:
    """Add a black upright of the partition wall at (x, y) [m]."""
    add_prop(
        spec.worldbody,
        type=BOX,
        pos=[x, y, floor + height / 2],
        size=[0.02, 0.03, height / 2],
        rgba=[0.06, 0.06, 0.07, 1],
    )
