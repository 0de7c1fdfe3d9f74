"""What stands around the robot: furniture, light and backdrop."""

from collections.abc import Callable
from dataclasses import dataclass

import mujoco

FOREGROUND = 0  # geom group of what is always simulated: robot, objects, articulated furniture
SCENERY = 2  # geom group of what a photograph replaces under visual matching
HIDDEN = 3  # geom group of collision shapes that are never drawn


@dataclass(frozen=True)
class Scene:
    """One kind of surroundings; a value.

    Names that variants rely on: materials `table`, `wall`, `floor` (and `cabinet`, `drawer` where there are drawers);
    every light is a child of the world body. Geoms that a photograph replaces under visual matching are in group
    `SCENERY`.

    Attributes:
        name: for example `bridge_table`.
        surface: height on which objects stand [m].
        area: ((x, y) lowest, highest) where further objects may stand [m].
        build: adds furniture, lights and scenery to a spec.
    """

    name: str
    surface: float
    area: tuple[tuple[float, float], tuple[float, float]]
    build: Callable[[mujoco.MjSpec], None]
