"""More things on the table than the task needs (ManiSkill2_real2sim `grasp_single_in_scene.py`)."""

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from envs import objects
from envs.geometry import PlanarPose
from envs.variant import VARIANT_AGGREGATION, Variant

if TYPE_CHECKING:
    from envs.task import Start, Task

Place = tuple[float, float]

# ([m] at least from each of the task's objects, [m] at most from the first along x and y): SIMPLER's rule, then others
# for starts that leave no room.
_RULES = ((0.25, 0.3), (0.20, 0.6), (0.15, 0.6), (0.10, 0.6), (0.0, 0.6))
_GAP = 0.01  # [m] between any two things
_TRIES = 200  # at each rule


def distractors(name: str, names: tuple[str, ...]) -> Variant:
    """The variant that adds these objects, upright; those that the task has already are left out."""
    change = partial(_add, names=names)
    return Variant(name, settings=(VARIANT_AGGREGATION,), change_start=change, belongs_to=_has_room)


def needed(start: "Start") -> tuple[str, ...]:
    """The objects that the first goal speaks of."""
    return tuple(name for name in vars(start.goals[0]).values() if name in start.objects)


def _add(task: "Task", start: "Start", rng: np.random.Generator, names: tuple[str, ...]) -> "Start":
    stand = dict(start.objects)
    keep_clear = [(start.objects[name].x, start.objects[name].y) for name in needed(start)]
    for name in names:
        if name not in stand:
            x, y = _free_place(task, name, stand, keep_clear, rng)
            stand[name] = PlanarPose(x, y, float(rng.uniform(0, 2 * np.pi)))
    return replace(start, objects=stand)


def _free_place(
    task: "Task", name: str, stand: dict[str, PlanarPose], keep_clear: list[Place], rng: np.random.Generator
) -> Place:
    """Near the task's object but not too near, in a fixed box, as SIMPLER; here also clear of everything else."""
    lowest, highest = np.array(task.scene.area)
    centre = np.array(keep_clear[0]) if keep_clear else (lowest + highest) / 2
    for apart, reach in _RULES:
        for _ in range(_TRIES):
            x, y = np.clip(centre + rng.uniform(-reach, reach, size=2), lowest, highest).tolist()
            beside = all(
                math.dist((x, y), (at.x, at.y)) > _radius(name) + _radius(other) + _GAP for other, at in stand.items()
            )
            if beside and all(math.dist((x, y), place) > apart for place in keep_clear):
                return x, y
    raise AssertionError(f"no room for {name} in {task.scene.name}: {stand}")


def _radius(name: str) -> float:
    """[m] of the circle around an upright object, seen from above."""
    return math.hypot(*objects.find(name).size[:2]) / 2


def _has_room(task: "Task") -> bool:
    return task.scene.name in ("google_table", "bridge_table") and "move_near" not in task.name
