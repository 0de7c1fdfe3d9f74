"""What an object is: shape, weight, look, and where a gripper takes hold of it."""

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.geometry import UPRIGHT, Matrix, Quaternion, Vector, wrap

# Bit 1 is the robot, bit 2 everything else: the robot meets objects, objects meet each other and the table.
OBJECT_COLLISION = {"contype": 2, "conaffinity": 3}
VISUAL_ONLY = {"contype": 0, "conaffinity": 0, "mass": 0.0}
OBJECT_FRICTION = [0.5, 0.005, 0.0001]  # SIMPLER's objects: 0.5
ROLLING_FRICTION = [0.5, 0.005, 0.001]  # [-], [m], [m]: a ball comes to rest instead of rolling off the table
# MuJoCo's contacts are as soft as their bodies are light: with its defaults, fingers sink 1 cm into an empty can. These
# keep them on the surface; `solmix` makes them count for more than what the object touches.
_HARD = {"solref": [0.005, 1.0], "solimp": [0.95, 0.99, 0.001, 0.5, 2.0], "solmix": 10.0}
_SLIDING_AND_TURNING, _AND_ROLLING = 3, 6  # what friction opposes in a contact: MuJoCo's `condim`
_LEVEL = 0.5  # [-] height gained along a direction of unit length, below which it counts as horizontal

Direction = tuple[float, float, float]


@dataclass(frozen=True)
class Grasp:
    """How a top-down gripper takes hold of an object as it lies now, in axes of which the third is vertical.

    Attributes:
        point: (3,) [m] between the fingertips, from the object's frame origin. Keep the tool higher if the fingers
            would reach the surface below it.
        closings: yaws [rad] in [0, pi) of the directions along which the fingers may close; empty if any will do.
            A direction and its opposite are the same for two fingers, so each stands for itself plus half a turn.
        width: between the fingers [m].
    """

    point: Vector
    closings: tuple[float, ...]
    width: float

    def nearest_closing(self, yaw: float) -> float:
        """The closing direction [rad] that is least turned from `yaw`, at most a quarter turn away."""
        turns = [wrap(closing - yaw, -np.pi / 2, np.pi) for closing in self.closings]
        return yaw + min(turns, key=abs, default=0.0)


@dataclass(frozen=True)
class RoundGrasp:
    """Grasp of what is round, or long: the fingers close across its axis, in any direction if that stands upright.

    Attributes:
        width: between the fingers [m].
        axis: in the object's frame; None for a ball.
        along: grasp point from the frame origin along the axis when it does not stand upright [m].
        above: grasp point above the frame origin [m].
        above_standing: the same when the axis stands upright [m].
    """

    width: float
    axis: Direction | None = None
    along: float = 0.0
    above: float = 0.0
    above_standing: float = 0.0

    def __call__(self, rotation: Matrix) -> Grasp:
        if self.axis is None:
            return Grasp(np.array([0.0, 0.0, self.above]), (), self.width)
        axis = rotation @ np.array(self.axis)
        if np.hypot(axis[0], axis[1]) < _LEVEL:
            return Grasp(np.array([0.0, 0.0, self.above_standing]), (), self.width)
        across = wrap(float(np.arctan2(axis[0], -axis[1])), 0.0, np.pi)
        return Grasp(self.along * axis + np.array([0.0, 0.0, self.above]), (across,), self.width)


@dataclass(frozen=True)
class BoxGrasp:
    """Grasp of a box: the fingers close on its narrowest pair of upright faces, or on either if they are alike.

    Of a box that tumbles and has none, on the pair that is most upright.

    Attributes:
        size: (x, y, z) of the box [m].
    """

    size: Direction

    def __call__(self, rotation: Matrix) -> Grasp:
        slopes = np.abs(rotation[2])  # of the box's axes
        level = [index for index in range(3) if slopes[index] < _LEVEL] or [int(slopes.argmin())]
        width = min(self.size[index] for index in level)
        yaws = [np.arctan2(rotation[1, index], rotation[0, index]) for index in level if self.size[index] <= width]
        return Grasp(np.zeros(3), tuple(wrap(float(yaw), 0.0, np.pi) for yaw in yaws), width)


@dataclass(frozen=True)
class ObjectModel:
    """One kind of object; its frame origin is the centre of its bounding box.

    Attributes:
        name: body name in the scene, and what `envs.objects.find` knows it by.
        words: what instructions call it.
        size: (x, y, z) full size of the bounding box that SIMPLER's success conditions use [m].
        build: adds the geoms to a body of a scene, and to the scene what they need (materials, meshes).
        grasp: (3, 3) rotation of the object's frame now -> how to take hold of it now, in the same axes; None for
            what is only a place to put things. Give it the rotation in the robot's base frame to get a grasp there:
            `model.grasp(world.base_rotation.T @ world.rotation(model.name))`.
        lying: the ways it can lie, by name (`upright`, `horizontal`, `vertical`), as rotations before the yaw.
    """

    name: str
    words: str
    size: tuple[float, float, float]
    build: Callable[[mujoco.MjSpec, mujoco.MjsBody], None]
    grasp: Callable[[Matrix], Grasp] | None = None
    lying: tuple[tuple[str, Quaternion], ...] = (("upright", UPRIGHT),)

    def add_to(self, scene: mujoco.MjSpec) -> None:
        """Add the object as a free body."""
        body = scene.worldbody.add_body(name=self.name)
        body.add_freejoint(name=self.name)
        self.build(scene, body)


def add_solid(body: mujoco.MjsBody, *, density: float, rolls: bool = False, **geom: object) -> None:
    """Add a geom that collides and weighs.

    Args:
        body: gets the geom.
        density: [kg/m^3]
        rolls: whether friction also opposes rolling.
        geom: keyword arguments as in `MjsBody.add_geom`; `group=HIDDEN` if something else is seen in its place.
    """
    body.add_geom(
        friction=ROLLING_FRICTION if rolls else OBJECT_FRICTION,
        condim=_AND_ROLLING if rolls else _SLIDING_AND_TURNING,
        density=density,
        **_HARD,
        **OBJECT_COLLISION,
        **geom,
    )


def add_visual(body: mujoco.MjsBody, **geom: object) -> None:
    """Add a geom that is only seen."""
    body.add_geom(**VISUAL_ONLY, **geom)
