"""Nothing on the table but what the instruction speaks of (SIMPLER's `no_distractor` of move near)."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from envs.variant import VARIANT_AGGREGATION, Variant
from envs.variants._distractors import needed

if TYPE_CHECKING:
    from envs.task import Start, Task


def _remove(task: "Task", start: "Start", rng: np.random.Generator) -> "Start":
    names = needed(start)
    return replace(start, objects={name: start.objects[name] for name in names}, goals=start.goals[:1])


VARIANT = Variant(
    "no_distractors",
    settings=(VARIANT_AGGREGATION,),
    change_start=_remove,
    belongs_to=lambda task: "move_near" in task.name,
)
