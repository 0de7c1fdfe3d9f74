"""Random places for several things on a table."""

import math
from collections.abc import Sequence

import numpy as np

from envs import objects
from envs.geometry import UPRIGHT, Quaternion, matrix_from_quaternion

Place = tuple[float, float]
_TRIES = 50  # for one thing before all are placed anew


def footprint(name: str, lying: Quaternion = UPRIGHT) -> float:
    """[m] radius of the circle around an object's bounding box as it lies, seen from above.

    Args:
        name: of the object.
        lying: its rotation, whole quarter turns.
    """
    extent = np.abs(matrix_from_quaternion(np.array(lying)) @ np.array(objects.find(name).size))
    return float(np.hypot(extent[0], extent[1])) / 2


def scattered(
    rng: np.random.Generator, radii: Sequence[float], lowest: Place, highest: Place, gap: float
) -> list[Place]:
    """Places (x, y) [m] of discs whose edges are at least `gap` apart.

    Args:
        rng: source of the draws.
        radii: of the discs [m]; few enough for the rectangle, or it never ends.
        lowest: corner of the rectangle in which their centres are [m].
        highest: the opposite corner [m].
        gap: [m]
    """
    while True:
        places: list[Place] = []
        for radius in radii:
            for x, y in rng.uniform(lowest, highest, (_TRIES, 2)).tolist():
                if all(
                    math.dist((x, y), place) >= radius + other + gap
                    for place, other in zip(places, radii, strict=False)
                ):
                    places.append((x, y))
                    break
        if len(places) == len(radii):
            return places
