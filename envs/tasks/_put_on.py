"""Bridge's pick-and-place family: put a source object on a target (ManiSkill2_real2sim `put_on_in_scene.py`)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from envs.geometry import Vector
from envs.object_model import ObjectModel
from envs.robot import Mount, Robot
from envs.robots.widowx import ROBOT
from envs.scene import Scene
from envs.task import Keypoints, Start, Success
from envs.tasks._layout import Layout, Room, jittered, scattered
from envs.world import World

_XY_TOLERANCE = 0.003  # [m]
_MOVED = 0.03  # [m] in the plane from which an object counts as moved
_GRASP_ANGLE = float(np.deg2rad(60.0))  # between a finger's push and its closing direction
_GRASP_STEPS = 5
_AT_REST = (0.02, 0.3)  # [m/s], [rad/s]
_JITTER = (0.02, float(np.deg2rad(20.0)))  # [m], [rad] by which fresh starts move every object from an official pose
_MARGIN = 0.025  # [m] between objects in mixed scenes: room for an open finger beside each


@dataclass(frozen=True)
class Place:
    """A target that belongs to the scene.

    Attributes:
        name: of the body that is touched by what lies there; its centre of mass is the centre of the place.
        size: (x, y, z) full size of the bounding box that SIMPLER's success condition uses [m].
        rim: how far above that centre an object's centre may be and still be inside [m].
    """

    name: str
    size: tuple[float, float, float]
    rim: float


@dataclass(frozen=True)
class PutOn:
    """Put one object on another, or into a place.

    Attributes:
        instruction: what the robot is told.
        source: what is moved.
        target: what it is put on.
        alone: whether the source may touch nothing but the target and the robot.
        height_tolerance: of the official condition [m].
    """

    instruction: str
    source: ObjectModel
    target: ObjectModel | Place
    alone: bool = False
    height_tolerance: float = 0.02

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects it needs."""
        models = (model for model in (self.source, self.target) if isinstance(model, ObjectModel))
        return tuple(sorted(model.name for model in models))

    def judge(self, world: World) -> "PutOnJudge":
        return PutOnJudge(self, world)


class PutOnJudge:
    """Watches one episode of a `PutOn` goal."""

    is_final_subtask = True

    def __init__(self, goal: PutOn, world: World) -> None:
        self._goal = goal
        self._world = world
        self._settled = {name: world.position(name) for name in world.objects}
        # SIMPLER turns the boxes' diagonals as the objects lie at the start, and keeps their signs.
        self._half_source = world.rotation(goal.source.name) @ np.array(goal.source.size) / 2
        self._half_target = world.rotation(goal.target.name) @ np.array(goal.target.size) / 2
        self._steps_grasped = 0
        self._was_grasped = self._was_grasped_long = False
        self.instruction = goal.instruction

    def advance_subtask(self) -> None:
        """There is only one."""

    def update(self) -> Success:
        world, source, target = self._world, self._goal.source.name, self._goal.target.name
        self._watch_grasp()
        linear, angular = world.speed(source)
        official = self._is_officially_on_target()
        conditions = {
            "released": not world.touched_by_robot(source),
            "at_rest": linear < _AT_REST[0] and angular < _AT_REST[1],
            "supported_by_target": world.touching(source, target) and self._is_below_rim(),
        }
        stats = {
            **self._moved(),
            "is_src_obj_grasped": self._was_grasped,
            "consecutive_grasp": self._was_grasped_long,
            "src_on_target": official,
            **conditions,
        }
        return Success(official, official and all(conditions.values()), stats)

    def keypoints(self) -> Keypoints:
        world, source = self._world, self._goal.source
        assert source.grasp is not None
        sideways = np.pi / 2  # what the fingers close along, seen from the robot, when the tool is not turned
        closing = source.grasp(world.rotation(source.name)).nearest_closing(sideways)
        return Keypoints(world.position(source.name), world.position(self._goal.target.name), closing)

    def _watch_grasp(self) -> None:
        grasped = self._world.grasped(self._goal.source.name, _GRASP_ANGLE)
        self._steps_grasped = self._steps_grasped + 1 if grasped else 0
        self._was_grasped |= grasped
        self._was_grasped_long |= self._steps_grasped >= _GRASP_STEPS

    def _moved(self) -> Mapping[str, bool]:
        """Whether the source has moved most of all objects, and whether another one has moved more."""
        moved = {
            name: float(np.linalg.norm((self._world.position(name) - start)[:2]))
            for name, start in self._settled.items()
        }
        source = moved.pop(self._goal.source.name)
        most = max(moved.values(), default=0.0)
        return {
            "moved_correct_obj": source > max(_MOVED, most),
            "moved_wrong_obj": most > max(_MOVED, source),
        }

    def _offset(self) -> Vector:
        """(3,) [m] from the target's centre of mass to the source's."""
        return self._world.position(self._goal.source.name) - self._world.position(self._goal.target.name)

    def _is_officially_on_target(self) -> bool:
        offset = self._offset()
        near = np.linalg.norm(offset[:2]) <= np.linalg.norm(self._half_target[:2]) + _XY_TOLERANCE
        space = offset[2] - self._half_target[2] - self._half_source[2]
        over = bool(near and offset[2] > 0 and space <= self._goal.height_tolerance)
        return over and not (self._goal.alone and self._touches_others())

    def _touches_others(self) -> bool:
        return bool(self._world.touched_bodies(self._goal.source.name) - {self._goal.target.name})

    def _is_below_rim(self) -> bool:
        target = self._goal.target
        return isinstance(target, ObjectModel) or bool(self._offset()[2] < target.rim)


@dataclass(frozen=True)
class Mixture:
    """What else can be in a scene and be asked for.

    Attributes:
        goals: everything that can be asked for; a scene offers those whose objects are all there.
        yaws: name of each object -> yaws in which it starts officially [rad].
        added: fewest and most goals whose objects are added to the task's own.
    """

    goals: tuple[PutOn, ...]
    yaws: Mapping[str, tuple[float, ...]]
    added: tuple[int, int]


@dataclass(frozen=True)
class PutOnTask:
    """A `PutOn` goal with its official starts.

    Attributes:
        layouts: where the objects stand in each official start.
        room: where objects of fresh starts stand.
        mixture: what a mixed scene may hold besides.
    """

    name: str
    goal: PutOn
    scene: Scene
    mount: Mount
    layouts: tuple[Layout, ...]
    room: Room
    mixture: Mixture
    max_steps: int = 60
    robot: Robot = ROBOT

    @property
    def grid_size(self) -> int:
        return len(self.layouts)

    def in_setting(self, setting: str) -> "PutOnTask":
        return self

    def official_start(self, episode_id: int) -> Start:
        return Start(self.layouts[episode_id], (self.goal,))

    def random_start(self, rng: np.random.Generator) -> Start:
        layout = self.layouts[rng.integers(self.grid_size)]
        return Start(jittered(layout, _JITTER, self.room, rng), (self.goal,))

    def mixed_start(self, rng: np.random.Generator) -> Start:
        names, yaws, layout = self._mixed_objects(rng), self.mixture.yaws, None
        while layout is None:
            lying = {name: float(rng.choice(yaws[name])) for name in names}
            layout = scattered(lying, _JITTER[1], _MARGIN, self.room, rng)
        further = (goal for goal in self.mixture.goals if goal != self.goal and set(goal.objects) <= set(layout))
        return Start(layout, (self.goal, *further))

    def _mixed_objects(self, rng: np.random.Generator) -> list[str]:
        """Names of the objects of this and of some other goals."""
        others = sorted({goal.objects for goal in self.mixture.goals} - {self.goal.objects})
        chosen = rng.permutation(len(others))[: rng.integers(*self.mixture.added, endpoint=True)]
        return [*self.goal.objects, *(name for index in chosen for name in others[index])]
