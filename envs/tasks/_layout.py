"""Where objects stand: on the corners of a square, moved a little, or scattered so that none is in another's way."""

from collections.abc import Iterable, Mapping
from itertools import combinations, permutations, product

import mujoco
import numpy as np

from envs import objects
from envs.geometry import Matrix, PlanarPose, Vector

Layout = Mapping[str, PlanarPose]
Point = tuple[float, float]
Room = tuple[Point, Point]  # lowest and highest (x, y) [m]

_TRIES = 20  # to find a place for one object


def on_corners(
    names: tuple[str, str], centre: Point, half_edges: Iterable[float], yaws: Iterable[tuple[float, float]]
) -> tuple[Layout, ...]:
    """Every way to stand two objects on different corners of squares, in SIMPLER's order.

    Args:
        names: of the two objects.
        centre: (x, y) of the squares [m].
        half_edges: of the squares [m].
        yaws: of the two objects, each a way to stand on every pair of corners [rad].
    """
    (x, y), first_name, second_name = centre, *names
    return tuple(
        {first_name: PlanarPose(*first, first_yaw), second_name: PlanarPose(*second, second_yaw)}
        for half in half_edges
        for first, second in permutations([(x + i * half, y + j * half) for i in (-1, 1) for j in (-1, 1)], 2)
        for first_yaw, second_yaw in yaws
    )


def jittered(layout: Layout, jitter: tuple[float, float], room: Room, rng: np.random.Generator) -> Layout:
    """The layout with every object moved along x and y and turned, each inside the room and none on another.

    Args:
        layout: where the objects stand.
        jitter: how far they are moved [m] and turned [rad] at most.
        room: where they may be.
        rng: source of the draws.
    """
    limits = np.array([jitter[0], *jitter])
    while True:
        moved = {name: pose.shifted(*rng.uniform(-limits, limits)) for name, pose in layout.items()}
        if is_free(moved, 0.0) and all(is_inside(name, pose, room) for name, pose in moved.items()):
            return moved


def scattered(
    yaws: Mapping[str, float], turn: float, margin: float, room: Room, rng: np.random.Generator
) -> Layout | None:
    """Objects anywhere in a room.

    Args:
        yaws: name of each object -> its yaw [rad].
        turn: by how much each is turned from that at most [rad].
        margin: between any two objects [m].
        room: where they may be.
        rng: source of the draws.

    Returns:
        Where each stands, or None if one found no place.
    """
    layout: dict[str, PlanarPose] = {}
    for name in sorted(yaws, key=lambda name: max(objects.find(name).size), reverse=True):  # the largest first
        for _ in range(_TRIES):
            pose = PlanarPose(0.0, 0.0, yaws[name] + rng.uniform(-turn, turn))
            corners, _ = _footprint(name, pose)
            pose = pose.shifted(*rng.uniform(room[0] - corners.min(axis=0), room[1] - corners.max(axis=0)))
            if is_free({**layout, name: pose}, margin):
                layout[name] = pose
                break
        else:
            return None
    return {name: layout[name] for name in yaws}


def is_inside(name: str, pose: PlanarPose, room: Room) -> bool:
    """Whether all of an object is in the room."""
    corners, _ = _footprint(name, pose)
    lowest, highest = np.array(room)
    return bool(np.all((corners >= lowest) & (corners <= highest)))


def is_free(layout: Layout, margin: float) -> bool:
    """Whether all objects are at least this far [m] from each other."""
    footprints = [_footprint(name, pose) for name, pose in layout.items()]
    return all(_distance(first, second) >= margin for first, second in combinations(footprints, 2))


def _footprint(name: str, pose: PlanarPose) -> tuple[Vector, Matrix]:
    """Corners (8, 2) [m] of an object's bounding box seen from above, and the directions (2, n) of its sides."""
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, pose.quaternion)
    axes = rotation.reshape(3, 3)[:2]
    half = np.array(objects.find(name).size) / 2
    corners = np.array(list(product((-1, 1), repeat=3))) * half @ axes.T + [pose.x, pose.y]
    sides = axes[:, np.linalg.norm(axes, axis=0) > 0.5]
    return corners, sides / np.linalg.norm(sides, axis=0)


def _distance(first: tuple[Vector, Matrix], second: tuple[Vector, Matrix]) -> float:
    """[m] between two footprints along the side direction that separates them most; below 0 if they overlap."""
    sides = np.hstack([first[1], second[1]])
    a, b = first[0] @ sides, second[0] @ sides
    return float(np.max(np.maximum(a.min(axis=0) - b.max(axis=0), b.min(axis=0) - a.max(axis=0))))
