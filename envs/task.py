"""What a task is: objects, starting states, words and a success condition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import mujoco
import numpy as np

from envs.geometry import PlanarPose
from envs.objects import ObjectModel
from envs.robot import Robot
from envs.world import World


@dataclass(frozen=True)
class Success:
    """Whether the task is solved now.

    Attributes:
        official: SIMPLER's condition.
        strict: official, and the object is released, at rest and really where it belongs.
        stats: what both are made of, for `info["episode_stats"]`.
    """

    official: bool
    strict: bool
    stats: Mapping[str, bool]


class Task(Protocol):
    """One instruction in one kind of scene. A task is a value; everything that changes lives in the World."""

    name: str
    robot: Robot
    instruction: str
    max_steps: int
    source: ObjectModel
    target: ObjectModel

    @property
    def grid_size(self) -> int:
        """Number of official initial states."""
        ...

    def add_to(self, scene: mujoco.MjSpec) -> None:
        """Add table and objects to a scene."""
        ...

    def official_start(self, episode_id: int) -> Mapping[str, PlanarPose]:
        """Object name -> pose of an official initial state, 0 <= episode_id < grid_size."""
        ...

    def random_start(self, rng: np.random.Generator) -> Mapping[str, PlanarPose]:
        """Object name -> pose of a fresh initial state."""
        ...

    def place(self, world: World, start: Mapping[str, PlanarPose]) -> None:
        """Put the objects where an episode starts."""
        ...

    def success(self, world: World) -> Success: ...
