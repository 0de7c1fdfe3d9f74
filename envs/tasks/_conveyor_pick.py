"""Pick an object that rides on a conveyor belt: the later the robot acts, the further it is.

Not one of SIMPLER's tasks: they stand still while a policy thinks.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from envs import objects
from envs.geometry import PlanarPose
from envs.robot import Mount, Robot
from envs.robots.google_robot import ROBOT
from envs.scene import Scene
from envs.scenes._conveyor import CONVEYOR
from envs.scenes.google_conveyor import SCENE
from envs.task import Start
from envs.tasks._pick import MOUNT, Pick

_SPEED = 0.02  # [m/s]
_XS, _X_JITTER = (-0.275, -0.235), 0.01  # [m] of the official starts across the belt, and of fresh ones
_ENTRIES = {1: 0.03, -1: 0.39}  # direction of travel -> y where the first object enters [m]
_OFFSETS = (0.0, 0.02, 0.04)  # [m] of the official starts, downstream
_BEHIND = 0.07  # [m] from the first object to the one that rides behind it


@dataclass(frozen=True)
class PickMoving(Pick):
    """Lift an object off the conveyor that carries it."""


@dataclass(frozen=True)
class ConveyorPickTask:
    """One object on the belt.

    Attributes:
        source: name of the object.
        other: name of what rides behind it in mixed scenes.
        orientations: how the object may lie.
    """

    name: str
    source: str
    other: str
    orientations: tuple[str, ...]
    max_steps: int = 48
    robot: Robot = ROBOT
    mount: Mount = MOUNT
    scene: Scene = SCENE

    @property
    def grid_size(self) -> int:
        return len(self._grid())

    def in_setting(self, setting: str) -> "ConveyorPickTask":
        return self

    def official_start(self, episode_id: int) -> Start:
        return self._start(*self._grid()[episode_id], riding=[self.source])

    def random_start(self, rng: np.random.Generator) -> Start:
        return self._fresh([self.source], rng)

    def mixed_start(self, rng: np.random.Generator) -> Start:
        return self._fresh([self.source, self.other], rng)

    def _grid(self) -> list[tuple[int, str, float, float]]:
        return list(product((1, -1), self.orientations, _XS, _OFFSETS))

    def _fresh(self, riding: list[str], rng: np.random.Generator) -> Start:
        direction, orientation = int(rng.choice((1, -1))), str(rng.choice(self.orientations))
        x, offset = rng.uniform(_XS[0] - _X_JITTER, _XS[-1] + _X_JITTER), rng.uniform(_OFFSETS[0], _OFFSETS[-1])
        return self._start(direction, orientation, float(x), float(offset), riding)

    def _start(self, direction: int, orientation: str, x: float, offset: float, riding: list[str]) -> Start:
        first = _ENTRIES[direction] + direction * offset
        poses = {
            name: PlanarPose(x, first - place * direction * _BEHIND, lying=dict(objects.find(name).lying)[orientation])
            for place, name in enumerate(riding)
        }
        return Start(poses, tuple(map(PickMoving, riding)), speeds={CONVEYOR: direction * _SPEED})
