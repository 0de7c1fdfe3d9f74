"""Bridge's pick-and-place family: put a source object on a target object (ManiSkill2_real2sim `put_on_in_scene.py`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import mujoco
import numpy as np

from envs.geometry import PlanarPose
from envs.objects import ObjectModel
from envs.robot import Robot
from envs.table import TABLE_HEIGHT, add_table
from envs.task import Success
from envs.world import World

_CENTRE = (-0.16, 0.00)  # of the square on whose corners objects stand [m]
_XY_TOLERANCE = 0.003  # [m]
_AT_REST = (0.02, 0.3)  # [m/s], [rad/s]


@dataclass(frozen=True)
class PutOn:
    """Put `source` on `target`; both start on corners of a square on the table.

    Attributes:
        half_edge: of the square [m].
        yaws: (source, target) start yaws; each is one official orientation [rad].
        height_tolerance: of the official condition [m].
        jitter: fresh starts move every object by up to this much from its official pose ([m], [rad]).
    """

    name: str
    robot: Robot
    instruction: str
    source: ObjectModel
    target: ObjectModel
    half_edge: float
    yaws: tuple[tuple[float, float], ...]
    max_steps: int = 60
    height_tolerance: float = 0.02
    jitter: tuple[float, float] = (0.02, np.deg2rad(20.0))

    @property
    def grid_size(self) -> int:
        return len(self._corner_pairs()) * len(self.yaws)

    def add_to(self, scene: mujoco.MjSpec) -> None:
        add_table(scene)
        for model in (self.source, self.target):
            model.add_to(scene)

    def official_start(self, episode_id: int) -> Mapping[str, PlanarPose]:
        source_corner, target_corner = self._corner_pairs()[episode_id // len(self.yaws)]
        source_yaw, target_yaw = self.yaws[episode_id % len(self.yaws)]
        return {
            self.source.name: PlanarPose(*source_corner, source_yaw),
            self.target.name: PlanarPose(*target_corner, target_yaw),
        }

    def random_start(self, rng: np.random.Generator) -> Mapping[str, PlanarPose]:
        official = self.official_start(int(rng.integers(self.grid_size)))
        metres, radians = self.jitter
        limits = np.array([metres, metres, radians])
        return {name: pose.shifted(*rng.uniform(-limits, limits)) for name, pose in official.items()}

    def place(self, world: World, start: Mapping[str, PlanarPose]) -> None:
        for model in (self.source, self.target):
            world.place(model.name, start[model.name], TABLE_HEIGHT + model.rest_height + 0.001)

    def success(self, world: World) -> Success:
        source, target = self.source.name, self.target.name
        on_target = self._officially_on_target(world)
        fingers = world.finger_contacts(source)
        linear, angular = world.speed(source)
        supported = world.touching(source, target)
        at_rest = linear < _AT_REST[0] and angular < _AT_REST[1]
        stats = {
            "src_on_target": on_target,
            "is_src_obj_grasped": fingers == 2,
            "released": fingers == 0,
            "at_rest": at_rest,
            "supported_by_target": supported,
        }
        return Success(on_target, on_target and fingers == 0 and at_rest and supported, stats)

    def _officially_on_target(self, world: World) -> bool:
        offset = world.position(self.source.name) - world.position(self.target.name)
        half_target = world.rotation(self.target.name) @ np.array(self.target.size) / 2
        above = offset[2] - (self.target.size[2] + self.source.size[2]) / 2
        near = np.linalg.norm(offset[:2]) <= np.linalg.norm(half_target[:2]) + _XY_TOLERANCE
        return bool(near and offset[2] > 0 and above <= self.height_tolerance)

    def _corner_pairs(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        x, y = _CENTRE
        half = self.half_edge
        corners = [(x + i * half, y + j * half) for i in (-1, 1) for j in (-1, 1)]
        return list(permutations(corners, 2))
