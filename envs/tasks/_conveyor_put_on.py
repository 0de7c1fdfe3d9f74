"""Put an object that rides on a conveyor belt on a target that lies still: the later the robot acts, the further it is.

Not one of SIMPLER's tasks: they stand still while a policy thinks.
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from envs.geometry import PlanarPose
from envs.object_model import ObjectModel
from envs.objects.carrot import CARROT
from envs.robot import Mount, Robot
from envs.robots.widowx import ROBOT, TABLE_MOUNT
from envs.scene import Scene
from envs.scenes._conveyor import CONVEYOR
from envs.scenes.bridge_conveyor import SCENE
from envs.task import Start
from envs.tasks._put_on import PutOn

_SPEED = 0.02  # [m/s]
_BELT, _MIDDLE = -0.20, 0.028  # [m] x of the belt's middle line, y in front of the robot
_UPSTREAM = 0.12  # [m] from there to where the object enters
_BEHIND = 0.17  # [m] from one object to the next
_OFFSETS = (-0.02, 0.0, 0.02)  # [m] of the official starts along the belt
_YAWS = (0.0, math.pi / 2)
_TARGETS = ((-0.055, -0.04), (-0.055, 0.10))  # (x, y) [m]
_JITTER, _TURN = 0.015, float(np.deg2rad(20.0))  # [m] and [rad] of fresh starts


@dataclass(frozen=True)
class PutOnMoving(PutOn):
    """Put an object that a conveyor carries on another object."""


@dataclass(frozen=True)
class ConveyorPutOnTask:
    """A moving object and a target beside the belt.

    Attributes:
        source: what rides on the belt.
        target: where it is to be put.
    """

    name: str
    source: ObjectModel
    target: ObjectModel
    max_steps: int = 60
    robot: Robot = ROBOT
    mount: Mount = TABLE_MOUNT
    scene: Scene = SCENE

    @property
    def grid_size(self) -> int:
        return len(self._grid())

    def in_setting(self, setting: str) -> "ConveyorPutOnTask":
        return self

    def official_start(self, episode_id: int) -> Start:
        direction, yaw, offset, target = self._grid()[episode_id]
        return self._start(direction, [self.source], [yaw], offset, target)

    def random_start(self, rng: np.random.Generator) -> Start:
        return self._fresh([self.source], rng)

    def mixed_start(self, rng: np.random.Generator) -> Start:
        """A carrot rides behind, and may be asked for instead."""
        return self._fresh([self.source, CARROT], rng)

    def _grid(self) -> list[tuple[int, float, float, tuple[float, float]]]:
        return list(product((1, -1), _YAWS, _OFFSETS, _TARGETS))

    def _fresh(self, riding: list[ObjectModel], rng: np.random.Generator) -> Start:
        direction = int(rng.choice((1, -1)))
        yaws = [float(rng.choice(_YAWS) + rng.uniform(-_TURN, _TURN)) for _ in riding]
        x, y = np.array(_TARGETS[rng.integers(len(_TARGETS))]) + rng.uniform(-_JITTER, _JITTER, 2)
        return self._start(direction, riding, yaws, float(rng.uniform(_OFFSETS[0], _OFFSETS[-1])), (float(x), float(y)))

    def _start(
        self, direction: int, riding: list[ObjectModel], yaws: list[float], offset: float, target: tuple[float, float]
    ) -> Start:
        """Objects enter against the direction of travel, one behind the other."""
        poses = {
            model.name: PlanarPose(_BELT, _MIDDLE - direction * (_UPSTREAM + place * _BEHIND) + offset, yaw)
            for place, (model, yaw) in enumerate(zip(riding, yaws, strict=True))
        }
        goals = tuple(PutOnMoving(self._words(model), model, self.target) for model in riding)
        stand = {**poses, self.target.name: PlanarPose(*target)}
        return Start(stand, goals, speeds={CONVEYOR: direction * _SPEED})

    def _words(self, model: ObjectModel) -> str:
        return f"put the {model.words} on the {self.target.words}"
