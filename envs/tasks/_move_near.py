"""Move one object near another (ManiSkill2_real2sim `move_near_in_scene.py`)."""

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from envs import objects
from envs.geometry import PlanarPose, Vector
from envs.robot import Mount, Robot
from envs.robots.google_robot import HEIGHT, ROBOT, START
from envs.scene import Scene
from envs.scenes.google_table import SCENE
from envs.task import Keypoints, Start, Success
from envs.tasks._pick import closing_yaw
from envs.tasks._scatter import Place, footprint, scattered
from envs.world import World

_MOVED = 0.03  # [m] in the plane
_NEAR = 0.10  # [m] at most between the circles around the two bounding boxes
_CLOSEST_BY = 0.01  # [m] that another object may be nearer than the target
_NOT_KNOCKED_DOWN, _NOT_FALLEN_OFF = -0.02, -0.15  # [m] of height
_STANDS_AS_BEFORE = 0.01  # [m] of height: less than an object gains or loses when it falls over
_AT_REST = (0.02, 0.3)  # [m/s], [rad/s]

_OFFICIAL = ("all_obj_keep_height", "moved_correct_obj", "near_tgt_obj", "is_closest_to_tgt")
_STRICT = ("released", "at_rest", "standing")

MOUNT = Mount(PlanarPose(0.35, 0.21, math.pi - 0.09), HEIGHT, START)

_TRIPLETS = (
    ("blue_plastic_bottle", "opened_pepsi_can", "toy_orange"),
    ("opened_7up_can", "toy_apple", "sponge"),
    ("opened_coke_can", "opened_redbull_can", "toy_apple"),
    ("sponge", "blue_plastic_bottle", "opened_7up_can"),
    ("toy_orange", "opened_pepsi_can", "opened_redbull_can"),
)
_TRIANGLES: tuple[tuple[Place, Place, Place], ...] = (
    ((-0.33, 0.04), (-0.33, 0.34), (-0.13, 0.19)),
    ((-0.13, 0.04), (-0.33, 0.19), (-0.13, 0.34)),
)
_PAIRS = tuple(permutations(range(3), 2))  # (source, target)
_TURNED = {"blue_plastic_bottle", "toy_orange", "sponge"}  # by a quarter turn; the others are not
_MORE = ("opened_fanta_can", "opened_sprite_can")  # of mixed scenes
_EVERY_OBJECT = tuple(sorted({*_MORE}.union(*_TRIPLETS)))

_JITTER = (0.03, 0.03, float(np.deg2rad(20.0)))  # [m], [m], [rad] of fresh starts
_MIXED_LOWEST, _MIXED_HIGHEST = (-0.36, -0.02), (-0.10, 0.40)  # [m]
_MIXED_GAP = 0.12  # [m] between objects


@dataclass(frozen=True)
class MoveNear:
    """Put one object down near another.

    Attributes:
        source: name of what is moved.
        target: name of what it is moved to.
    """

    source: str
    target: str

    @property
    def instruction(self) -> str:
        return f"move {objects.find(self.source).words} near {objects.find(self.target).words}"

    def judge(self, world: World) -> "MoveNearJudge":
        return MoveNearJudge(self, world)


class MoveNearJudge:
    """Watches one episode of a `MoveNear` goal.

    Strict success is official success with the source released, everything at rest, and every object as high as it
    stood: none has fallen over, off the table or onto another.
    """

    is_final_subtask = True

    def __init__(self, goal: MoveNear, world: World) -> None:
        self.instruction = goal.instruction
        self._source, self._target = goal.source, goal.target
        self._world = world
        self._start = {name: world.origin(name) for name in world.objects}
        self._near = _NEAR + half_diagonal(world, goal.source) + half_diagonal(world, goal.target)

    def advance_subtask(self) -> None:
        """There is only one."""

    def update(self) -> Success:
        moves = {name: self._world.origin(name) - start for name, start in self._start.items()}
        stats = {
            "all_obj_keep_height": self._keep_height(moves),
            **self._moved(moves),
            **self._distances(),
            "released": not self._world.touched_by_robot(self._source),
            "at_rest": not self._world.is_moving(*_AT_REST),
            "standing": all(abs(move[2]) < _STANDS_AS_BEFORE for move in moves.values()),
        }
        official = all(stats[key] for key in _OFFICIAL)
        return Success(official, official and all(stats[key] for key in _STRICT), stats)

    def keypoints(self) -> Keypoints:
        world = self._world
        return Keypoints(world.position(self._source), world.position(self._target), closing_yaw(world, self._source))

    def _keep_height(self, moves: dict[str, Vector]) -> bool:
        pair = (self._source, self._target)
        lowest = {name: _NOT_FALLEN_OFF if name in pair else _NOT_KNOCKED_DOWN for name in moves}
        return all(move[2] > lowest[name] for name, move in moves.items())

    def _moved(self, moves: dict[str, Vector]) -> dict[str, bool]:
        lengths = {name: float(np.linalg.norm(move[:2])) for name, move in moves.items()}
        own = lengths.pop(self._source)
        furthest = max(lengths.values())
        return {
            "moved_correct_obj": own > _MOVED and furthest < own,
            "moved_wrong_obj": furthest > _MOVED and furthest > own,
        }

    def _distances(self) -> dict[str, bool]:
        source = self._world.position(self._source)
        others = [name for name in self._world.objects if name != self._source]
        distances = {name: float(np.linalg.norm((self._world.position(name) - source)[:2])) for name in others}
        to_target = distances[self._target]
        return {
            "near_tgt_obj": to_target < self._near,
            "is_closest_to_tgt": to_target < min(distances.values()) + _CLOSEST_BY,
        }


def half_diagonal(world: World, name: str) -> float:
    """[m] of an object's bounding box in the plane, turned as the object is now: its diagonal, as SIMPLER does it."""
    diagonal = world.rotation(name) @ np.array(objects.find(name).size)
    return float(np.linalg.norm(diagonal[:2])) / 2


@dataclass(frozen=True)
class MoveNearTask:
    """Move one of three objects near another; every other pair of them could be asked for as well.

    Official starts: five triplets of objects, each on two triangles, each with all six pairs. Fresh starts: the same,
    every object moved and turned a little. Mixed scenes: any three objects anywhere.
    """

    name: str
    max_steps: int = 80
    robot: Robot = ROBOT
    mount: Mount = MOUNT
    scene: Scene = SCENE

    @property
    def grid_size(self) -> int:
        return len(_TRIPLETS) * len(_TRIANGLES) * len(_PAIRS)

    def in_setting(self, setting: str) -> "MoveNearTask":
        return self

    def official_start(self, episode_id: int) -> Start:
        arrangement, pair = divmod(episode_id, len(_PAIRS))
        triplet, triangle = divmod(arrangement, len(_TRIANGLES))
        names = _TRIPLETS[triplet]
        yaws = [math.pi / 2 if name in _TURNED else 0.0 for name in names]
        poses = [PlanarPose(*place, yaw) for place, yaw in zip(_TRIANGLES[triangle], yaws, strict=True)]
        return Start(dict(zip(names, poses, strict=True)), _goals(names, pair))

    def random_start(self, rng: np.random.Generator) -> Start:
        official = self.official_start(int(rng.integers(self.grid_size)))
        limits = np.array(_JITTER)
        poses = {name: pose.shifted(*rng.uniform(-limits, limits)) for name, pose in official.objects.items()}
        return Start(poses, official.goals)

    def mixed_start(self, rng: np.random.Generator) -> Start:
        names = tuple(map(str, rng.choice(_EVERY_OBJECT, 3, replace=False)))
        radii = [footprint(name) for name in names]
        places = scattered(rng, radii, _MIXED_LOWEST, _MIXED_HIGHEST, _MIXED_GAP)
        yaws = rng.uniform(-np.pi, np.pi, 3).tolist()
        poses = [PlanarPose(*place, yaw) for place, yaw in zip(places, yaws, strict=True)]
        return Start(dict(zip(names, poses, strict=True)), _goals(names, 0))


def _goals(names: tuple[str, ...], first: int) -> tuple[MoveNear, ...]:
    """Every pair of three objects as a goal, that of number `first` first."""
    goals = [MoveNear(names[source], names[target]) for source, target in _PAIRS]
    return (goals.pop(first), *goals)
