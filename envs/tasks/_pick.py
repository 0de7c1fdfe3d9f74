"""Pick one object up from the table (ManiSkill2_real2sim `grasp_single_in_scene.py`)."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from envs import objects
from envs.geometry import PlanarPose, Quaternion, roll_pitch_yaw
from envs.robot import Mount, Robot
from envs.robots.google_robot import HEIGHT, ROBOT, START
from envs.scene import Scene
from envs.scenes.google_table import SCENE
from envs.task import Keypoints, Start, Success
from envs.tasks._scatter import Place, footprint, scattered
from envs.world import World

_GRASP_ANGLE = float(np.deg2rad(80.0))  # between a finger's push and its closing direction
_LIFTED, _LIFTED_SIGNIFICANTLY = 0.01, 0.02  # [m]
_OFTEN = 5  # steps: of a lasting grasp, of significant lifts
_STEADY = 0.05  # [m/s]
_HELD_UP = 0.10  # [m] above its start: where an object that was picked is taken to

MOUNT = Mount(PlanarPose(0.35, 0.20, math.pi), HEIGHT, START)

# Official places: SimplerEnv `scripts/rt1_pick_coke_can_*.sh`, --obj-init-x -0.35 -0.12 5 --obj-init-y -0.02 0.42 5.
_LOWEST, _HIGHEST = (-0.35, -0.02), (-0.12, 0.42)  # [m]
_XS, _YS = (np.linspace(low, high, 5).tolist() for low, high in zip(_LOWEST, _HIGHEST, strict=True))
GRID: tuple[Place, ...] = tuple(product(_XS, _YS))

# SIMPLER's `GraspSingleRandomObjectInScene-v0`.
OBJECTS = (
    *("opened_pepsi_can", "opened_coke_can", "opened_sprite_can", "opened_fanta_can", "opened_redbull_can"),
    *("blue_plastic_bottle", "apple", "orange", "sponge", "spoon", "carrot", "green_cube", "yellow_cube", "eggplant"),
)
ORIENTATIONS = ("horizontal", "vertical", "upright")

_GAP = 0.07  # [m] between objects of mixed scenes: an open finger fits
_MIXED_LOWEST, _MIXED_HIGHEST = (-0.38, -0.06), (-0.10, 0.46)  # [m]


@dataclass(frozen=True)
class Pick:
    """Lift one object off everything.

    Attributes:
        source: name of the object.
    """

    source: str

    @property
    def instruction(self) -> str:
        return f"pick {objects.find(self.source).words}"

    def judge(self, world: World) -> "PickJudge":
        return PickJudge(self, world)


class PickJudge:
    """Watches one episode of a `Pick` goal.

    Official success is remembered, as in SIMPLER: it holds from the step in which the object is lifted clear until the
    grasp is lost, and for good after five steps of a significant lift. Strict success is an object in the grasp now,
    lifted significantly, touched by nothing but the robot, and steady.
    """

    is_final_subtask = True

    def __init__(self, goal: Pick, world: World) -> None:
        self.instruction = goal.instruction
        self._source = goal.source
        self._world = world
        self._start = world.origin(goal.source)
        self._grasps_in_a_row = 0
        self._was_grasped = self._was_held = self._lifted = False
        self._significant_lifts = 0

    def advance_subtask(self) -> None:
        """There is only one."""

    def update(self) -> Success:
        world, source = self._world, self._source
        grasped = world.grasped(source, _GRASP_ANGLE)
        clear = not world.touched_bodies(source)
        height = world.origin(source)[2] - self._start[2]
        self._grasps_in_a_row = self._grasps_in_a_row + 1 if grasped else 0
        self._was_grasped |= grasped
        self._was_held |= self._grasps_in_a_row >= _OFTEN
        self._lifted = bool((self._lifted and grasped) or (clear and height > _LIFTED))
        self._significant_lifts += int(self._lifted and height > _LIFTED_SIGNIFICANTLY)
        official = self._lifted or self._significant_lifts >= _OFTEN
        steady = world.speed(source)[0] < _STEADY
        stats = {
            "n_lift_significant": self._significant_lifts,
            "consec_grasp": self._was_held,
            "grasped": self._was_grasped,
            "clear": clear,
            "steady": steady,
        }
        strict = grasped and clear and steady and height > _LIFTED_SIGNIFICANTLY
        return Success(official, bool(strict), stats)

    def keypoints(self) -> Keypoints:
        up = self._start + np.array([0.0, 0.0, _HELD_UP])
        return Keypoints(self._world.position(self._source), up, closing_yaw(self._world, self._source))


def closing_yaw(world: World, name: str) -> float:
    """[rad] along which to close on an object as it lies, in the world; nearest the base's y axis if it can choose.

    Raises:
        ValueError: if the object has no grasp.
    """
    grasp = objects.find(name).grasp
    if grasp is None:
        raise ValueError(f"{name} has no grasp")
    return grasp(world.rotation(name)).nearest_closing(roll_pitch_yaw(world.base_rotation)[2] + np.pi / 2)


@dataclass(frozen=True)
class PickTask:
    """Pick one of some objects, alone on the table.

    Official starts: every orientation at every place, with every object. Fresh starts: an object and an orientation at
    random, anywhere between SIMPLER's outermost places. Mixed scenes: two to four further objects stand around.

    Attributes:
        objects: which may be asked for.
        orientations: how they may lie, of `ORIENTATIONS`.
        places: (x, y) of the official starts [m].
    """

    name: str
    objects: tuple[str, ...]
    orientations: tuple[str, ...] = ORIENTATIONS
    places: tuple[Place, ...] = GRID
    max_steps: int = 80
    robot: Robot = ROBOT
    mount: Mount = MOUNT
    scene: Scene = SCENE

    @property
    def grid_size(self) -> int:
        return len(self.orientations) * len(self.places) * len(self.objects)

    def in_setting(self, setting: str) -> "PickTask":
        return self

    def official_start(self, episode_id: int) -> Start:
        orientation, place, name = list(product(self.orientations, self.places, self.objects))[episode_id]
        return Start({name: _pose(name, orientation, place)}, (Pick(name),))

    def random_start(self, rng: np.random.Generator) -> Start:
        name, orientation = str(rng.choice(self.objects)), str(rng.choice(self.orientations))
        x, y = rng.uniform(_LOWEST, _HIGHEST)
        return Start({name: _pose(name, orientation, (float(x), float(y)))}, (Pick(name),))

    def mixed_start(self, rng: np.random.Generator) -> Start:
        own = str(rng.choice(self.objects))
        others = rng.choice([name for name in OBJECTS if name != own], rng.integers(2, 5), replace=False)
        names = [own, *map(str, others)]
        orientations = [str(rng.choice(self.orientations)), *map(str, rng.choice(ORIENTATIONS, len(others)))]
        radii = [footprint(name, _lying(name, way)) for name, way in zip(names, orientations, strict=True)]
        places = scattered(rng, radii, _MIXED_LOWEST, _MIXED_HIGHEST, _GAP)
        poses = map(_pose, names, orientations, places)
        return Start(dict(zip(names, poses, strict=True)), tuple(map(Pick, names)))


def _lying(name: str, orientation: str) -> Quaternion:
    return dict(objects.find(name).lying)[orientation]


def _pose(name: str, orientation: str, place: Place) -> PlanarPose:
    return PlanarPose(*place, lying=_lying(name, orientation))
