"""What a task is: a scene, starting states, and goals with words and a success condition."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from envs.geometry import PlanarPose, Vector
from envs.robot import Mount, Robot
from envs.scene import Scene
from envs.world import World


@dataclass(frozen=True)
class Success:
    """Whether the goal is reached now.

    Attributes:
        official: SIMPLER's condition.
        strict: official, and the object is released, at rest and really where it belongs.
        stats: what both are made of, for `info["episode_stats"]`.
    """

    official: bool
    strict: bool
    stats: Mapping[str, bool | int | float]


@dataclass(frozen=True)
class Keypoints:
    """Where the things that matter are: labels for training, in the world frame.

    Attributes:
        source: (3,) [m] of what the gripper goes for: an object's centre, a handle.
        target: (3,) [m] of where it is to end up.
        grasp_yaw: [rad] of the gripper's closing direction about the vertical, modulo half a turn.
    """

    source: Vector
    target: Vector
    grasp_yaw: float


class Judge(Protocol):
    """Watches one episode of one goal; made when the objects have settled."""

    @property
    def instruction(self) -> str:
        """What the robot is told now."""
        ...

    @property
    def is_final_subtask(self) -> bool: ...

    def advance_subtask(self) -> None:
        """Go on to the next instruction; does nothing at the last."""
        ...

    def update(self) -> Success:
        """Look at the world; called once after settling and once after every control step."""
        ...

    def keypoints(self) -> Keypoints: ...


class Goal(Protocol):
    """One thing that can be asked for in a scene; a value. Its module names the family, and so the expert."""

    @property
    def instruction(self) -> str:
        """The first, or only, instruction."""
        ...

    def judge(self, world: World) -> Judge: ...


@dataclass(frozen=True)
class Start:
    """How an episode begins.

    Attributes:
        objects: name of each object in the scene -> where it stands.
        goals: what can be asked for in this scene; the first is what the task asks for.
        base: where the robot stands, None for the mount's own place.
        joints: positions of the furniture's joints (drawers) [m]; those not named are 0.
        speeds: of the furniture's motors (conveyors) once objects have settled [m/s]; those not named stand still.
    """

    objects: Mapping[str, PlanarPose]
    goals: tuple[Goal, ...]
    base: PlanarPose | None = None
    joints: Mapping[str, float] = field(default_factory=dict)
    speeds: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """A named family of episodes. A task is a value; everything that changes lives in the World and the Judge."""

    @property
    def name(self) -> str: ...

    @property
    def robot(self) -> Robot: ...

    @property
    def mount(self) -> Mount: ...

    @property
    def scene(self) -> Scene: ...

    @property
    def max_steps(self) -> int: ...

    @property
    def grid_size(self) -> int:
        """Number of official initial states."""
        ...

    def in_setting(self, setting: str) -> "Task":
        """The task with the official starts of a setting; itself where they are the same in all."""
        ...

    def official_start(self, episode_id: int) -> Start:
        """An official initial state, 0 <= episode_id < grid_size."""
        ...

    def random_start(self, rng: np.random.Generator) -> Start:
        """A fresh initial state of the official scene."""
        ...

    def mixed_start(self, rng: np.random.Generator) -> Start:
        """A fresh initial state with objects and targets of other tasks present, so that several goals are valid."""
        ...
