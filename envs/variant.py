"""A visual variant: what a perturbation changes in a scene, whatever the task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

    from envs.task import Start, Task

VISUAL_MATCHING = "visual_matching"
VARIANT_AGGREGATION = "variant_aggregation"
SETTINGS = (VISUAL_MATCHING, VARIANT_AGGREGATION)


def unchanged(task: "Task", start: "Start", rng: np.random.Generator) -> "Start":
    """The start as it is."""
    return start


@dataclass(frozen=True)
class Variant:
    """One perturbation; a value, composes with any task.

    Attributes:
        name: for example `lighting_brighter`.
        settings: in which it is part of the suite.
        edit: changes the finished scene: materials, lights, cameras.
        change_start: adds or moves objects before an episode.
        belongs_to: whether SIMPLER runs it for this task; any task accepts it when asked for by name.
        in_average: False for variants that are run but not averaged (SIMPLER's camera poses).
    """

    name: str
    settings: tuple[str, ...]
    edit: "Callable[[mujoco.MjSpec], None]" = lambda spec: None
    change_start: "Callable[[Task, Start, np.random.Generator], Start]" = unchanged
    belongs_to: "Callable[[Task], bool]" = lambda task: True
    in_average: bool = True
