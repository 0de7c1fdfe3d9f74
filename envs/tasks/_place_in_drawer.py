"""Open a drawer, then put an object into it (ManiSkill2_real2sim `place_in_closed_drawer_in_scene.py`)."""

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from envs import objects
from envs.geometry import PlanarPose, Vector
from envs.robot import Mount, Robot
from envs.robots.google_robot import ROBOT
from envs.scene import Scene
from envs.scenes.google_cabinet import SCENE
from envs.task import Keypoints, Start, Success
from envs.tasks._drawer import (
    AJAR,
    DRAWERS,
    MOUNT,
    OPENED,
    STANDS,
    handle_keypoints,
    is_at_rest,
    is_released,
    joint,
    stand_between,
)
from envs.tasks._pick import closing_yaw
from envs.variant import VARIANT_AGGREGATION, VISUAL_MATCHING
from envs.world import World

_STILL_OPEN = 0.05  # [m] at least which the drawer must be open when the object is in it
_ADVANCE_AFTER = 100  # steps after which the second instruction is given, unless it was asked for before
_OBJECT_AT_REST = (0.02, 0.3)  # [m/s], [rad/s]
_INSIDE = (0.275, 0.2575, 0.07)  # half the drawer's box between its walls, up to the front's rim [m]
_FLOOR = -0.05  # [m] of the drawer above its frame's origin
_NEAREST = {"top": 0.02, "middle": 0.05, "bottom": 0.05}  # [m] x of what juts out above: the cabinet's top, a handle
_APART = 0.16  # [m] between the middles of two objects in mixed scenes, at least

# SIMPLER's `info_pick_custom_baked_tex_v1.json`; models that differ only in how light is baked into them are one here.
OBJECTS = (
    *("7up_can", "apple", "blue_plastic_bottle", "coke_can", "fanta_can", "opened_7up_can", "opened_coke_can"),
    *("opened_fanta_can", "opened_pepsi_can", "opened_redbull_can", "opened_sprite_can", "orange", "pepsi_can"),
    *("redbull_can", "sponge", "sprite_can"),
)
NEAR_STANDS = {
    VISUAL_MATCHING: STANDS[VISUAL_MATCHING][::3],  # a0, b0, c0
    VARIANT_AGGREGATION: STANDS[VARIANT_AGGREGATION][:3],
}
_XS, _YS = (-0.08, -0.05, -0.02), (-0.02, 0.03, 0.08)  # [m] of the object's official places on the cabinet
_MIXED_YS = (-0.16, 0.22)  # [m] between which a further object stands


@dataclass(frozen=True)
class PlaceInDrawer:
    """Open a drawer and put an object into it.

    Attributes:
        source: name of the object.
        drawer: which of `DRAWERS`.
    """

    source: str
    drawer: str

    @property
    def instruction(self) -> str:
        return f"open {self.drawer} drawer"

    def judge(self, world: World) -> "PlaceInDrawerJudge":
        return PlaceInDrawerJudge(self, world)


class PlaceInDrawerJudge:
    """Watches one episode of a `PlaceInDrawer` goal: first the drawer is to be opened, then the object put into it.

    The second instruction comes when it is asked for, or by itself after 100 steps, as in SIMPLER.
    """

    def __init__(self, goal: PlaceInDrawer, world: World) -> None:
        self._goal = goal
        self._world = world
        self._elapsed = -1  # the first look is before the first step
        self._contacts = 0
        self._was_open = False
        self.is_final_subtask = False

    @property
    def instruction(self) -> str:
        if not self.is_final_subtask:
            return self._goal.instruction
        return f"place {objects.find(self._goal.source).words} into {self._goal.drawer} drawer"

    def advance_subtask(self) -> None:
        self.is_final_subtask = True

    def update(self) -> Success:
        self._elapsed += 1
        if self._elapsed > _ADVANCE_AFTER:
            self.advance_subtask()
        world, drawer, source = self._world, self._goal.drawer, self._goal.source
        position = world.joint(joint(drawer))
        self._was_open |= position >= OPENED
        self._contacts += world.touching(source, f"{drawer}_drawer_bottom")
        official = self.is_final_subtask and position >= _STILL_OPEN and self._contacts >= 1
        stats = {
            "qpos": position,
            "is_drawer_open": self._was_open,
            "has_contact": self._contacts,
            "inside": self._inside(),
            "released": is_released(world, drawer) and not world.touched_by_robot(source),
            "at_rest": is_at_rest(world, drawer) and self._object_at_rest(),
        }
        return Success(official, official and stats["inside"] and stats["released"] and stats["at_rest"], stats)

    def keypoints(self) -> Keypoints:
        """What comes next: the handle on its way, then the object on its way."""
        world, drawer = self._world, self._goal.drawer
        if not self.is_final_subtask:
            return handle_keypoints(world, drawer, AJAR)
        source = world.position(self._goal.source)
        return Keypoints(source, opening(world, drawer), closing_yaw(world, self._goal.source))

    def _inside(self) -> bool:
        offset = self._world.position(self._goal.source) - self._world.origin(f"{self._goal.drawer}_drawer")
        return bool((np.abs(offset) < _INSIDE).all())

    def _object_at_rest(self) -> bool:
        linear, angular = self._world.speed(self._goal.source)
        return linear < _OBJECT_AT_REST[0] and angular < _OBJECT_AT_REST[1]


def opening(world: World, drawer: str) -> Vector:
    """(3,) [m] middle of what can be reached from above of an open drawer's floor, in the world frame."""
    origin = world.origin(f"{drawer}_drawer")
    front = origin[0] + _INSIDE[0]
    return np.array([(_NEAREST[drawer] + front) / 2, origin[1], origin[2] + _FLOOR])


def lying_across(name: str, x: float, y: float) -> PlanarPose:
    """How SIMPLER puts an object down here: cans and bottles with their axis along the world's y."""
    return PlanarPose(x, y, math.pi, dict(objects.find(name).lying)["horizontal"])


@dataclass(frozen=True)
class PlaceInDrawerTask:
    """One of several objects, on the cabinet above its closed drawers, is to be put into one of several drawers.

    Official starts: nine places of the object seen from each of three stands, which SIMPLER evaluates for the apple and
    the top drawer; with more drawers the same again for each, and with more objects these take turns. Fresh starts: a
    drawer and an object at random, the object anywhere between its official places, the robot on a line between two
    official stands. Mixed scenes: another object beside it.

    Attributes:
        drawers: which of `DRAWERS` may be asked for.
        objects: names of those that may be asked for.
        stands: where the robot may stand.
    """

    name: str
    drawers: tuple[str, ...] = DRAWERS
    objects: tuple[str, ...] = OBJECTS
    stands: tuple[PlanarPose, ...] = NEAR_STANDS[VISUAL_MATCHING]
    max_steps: int = 200
    robot: Robot = ROBOT
    mount: Mount = MOUNT
    scene: Scene = SCENE

    @property
    def grid_size(self) -> int:
        return len(self._grid())

    def in_setting(self, setting: str) -> "PlaceInDrawerTask":
        """The task with the official stands of a setting."""
        return replace(self, stands=NEAR_STANDS[setting])

    def official_start(self, episode_id: int) -> Start:
        drawer, stand, x, y = self._grid()[episode_id]
        source = self.objects[episode_id % len(self.objects)]
        return self._start(drawer, stand, {source: lying_across(source, x, y)})

    def random_start(self, rng: np.random.Generator) -> Start:
        drawer, stand, source = str(rng.choice(self.drawers)), stand_between(self.stands, rng), self._any_source(rng)
        return self._start(drawer, stand, {source: self._anywhere(source, rng)})

    def mixed_start(self, rng: np.random.Generator) -> Start:
        drawer, stand, source = str(rng.choice(self.drawers)), stand_between(self.stands, rng), self._any_source(rng)
        other = str(rng.choice([name for name in OBJECTS if name != source]))
        pose = self._anywhere(source, rng)
        poses = {source: pose, other: lying_across(other, pose.x, _beside(pose.y, rng))}
        return self._start(drawer, stand, poses)

    def _any_source(self, rng: np.random.Generator) -> str:
        return str(rng.choice(self.objects))

    def _anywhere(self, source: str, rng: np.random.Generator) -> PlanarPose:
        return lying_across(source, *rng.uniform((_XS[0], _YS[0]), (_XS[-1], _YS[-1])))

    def _grid(self) -> list[tuple[str, PlanarPose, float, float]]:
        return list(product(self.drawers, self.stands, _XS, _YS))

    def _start(self, drawer: str, stand: PlanarPose, poses: dict[str, PlanarPose]) -> Start:
        """The start that asks for the first object and this drawer."""
        drawers = (drawer, *(other for other in DRAWERS if other != drawer))
        goals = tuple(PlaceInDrawer(source, each) for source, each in product(poses, drawers))
        return Start(poses, goals, stand)


def _beside(y: float, rng: np.random.Generator) -> float:
    """[m] where a further object stands, far enough to either side of y."""
    lowest, highest = _MIXED_YS
    left = max(y - _APART - lowest, 0.0)
    room = rng.uniform(0.0, left + max(highest - y - _APART, 0.0))
    return lowest + room if room < left else y + _APART + room - left
