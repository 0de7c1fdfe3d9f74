"""Open or close a drawer of the cabinet (ManiSkill2_real2sim `open_drawer_in_scene.py`)."""

import math
from dataclasses import dataclass, replace

import numpy as np

from envs.geometry import PlanarPose
from envs.robot import Mount, Robot
from envs.robots.google_robot import HEIGHT, ROBOT, START
from envs.scene import Scene
from envs.scenes.google_cabinet import SCENE
from envs.task import Keypoints, Start, Success
from envs.variant import VARIANT_AGGREGATION, VISUAL_MATCHING
from envs.world import World

DRAWERS = ("top", "middle", "bottom")
OPENED, CLOSED = 0.15, 0.05  # [m] at least which a drawer counts as open, at most which as closed
AJAR = 0.2  # [m] where an open drawer starts
_AT_REST = 0.005  # [m/s]

# Where the robot stands, (x, y) [m] and turn from facing the cabinet [rad]: SimplerEnv `scripts/rt1_drawer_*.sh`.
_PHOTOGRAPHED = (
    *((0.644, -0.179, -0.03), (0.765, -0.182, -0.02), (0.889, -0.203, -0.06)),
    *((0.652, 0.009, 0.0), (0.752, 0.009, 0.0), (0.851, 0.035, 0.0)),
    *((0.665, 0.224, 0.0), (0.765, 0.222, -0.025), (0.865, 0.222, -0.025)),
)
_REGULAR = tuple((x, y, 0.0) for x in (0.65, 0.75, 0.85) for y in (-0.2, 0.0, 0.2))
STANDS = {
    setting: tuple(PlanarPose(x, y, math.pi + turn) for x, y, turn in poses)
    for setting, poses in ((VISUAL_MATCHING, _PHOTOGRAPHED), (VARIANT_AGGREGATION, _REGULAR))
}

MOUNT = Mount(STANDS[VISUAL_MATCHING][0], HEIGHT, START)


def joint(drawer: str) -> str:
    """Name of a drawer's slide joint."""
    return f"{drawer}_drawer_joint"


def stand_between(stands: tuple[PlanarPose, ...], rng: np.random.Generator) -> PlanarPose:
    """A pose at random on the line between two of these: inside their hull, turn included."""
    start, end = (stands[index] for index in rng.choice(len(stands), size=2, replace=False))
    share = rng.uniform()
    return start.shifted(share * (end.x - start.x), share * (end.y - start.y), share * (end.yaw - start.yaw))


@dataclass(frozen=True)
class Drawer:
    """Open or close one drawer.

    Attributes:
        drawer: which of `DRAWERS`.
        opens: whether it is to be opened.
    """

    drawer: str
    opens: bool

    @property
    def instruction(self) -> str:
        return f"{'open' if self.opens else 'close'} {self.drawer} drawer"

    def judge(self, world: World) -> "DrawerJudge":
        return DrawerJudge(self, world)


class DrawerJudge:
    """Watches one episode of a `Drawer` goal."""

    is_final_subtask = True

    def __init__(self, goal: Drawer, world: World) -> None:
        self._goal = goal
        self._world = world
        self.instruction = goal.instruction

    def advance_subtask(self) -> None:
        """There is only one."""

    def update(self) -> Success:
        world, drawer = self._world, self._goal.drawer
        position = world.joint(joint(drawer))
        reached = position >= OPENED if self._goal.opens else position <= CLOSED
        released, at_rest = is_released(world, drawer), is_at_rest(world, drawer)
        stats = {"qpos": position, "released": released, "at_rest": at_rest}
        return Success(reached, reached and released and at_rest, stats)

    def keypoints(self) -> Keypoints:
        return handle_keypoints(self._world, self._goal.drawer, AJAR if self._goal.opens else 0.0)


def handle_keypoints(world: World, drawer: str, wanted: float) -> Keypoints:
    """The handle, and where it is when the drawer is at a wanted position [m]; fingers close in a vertical plane."""
    handle = world.site(f"{drawer}_handle")
    return Keypoints(handle, handle + np.array([wanted - world.joint(joint(drawer)), 0.0, 0.0]), 0.0)


def is_released(world: World, drawer: str) -> bool:
    """Whether no link of the robot pushes the drawer."""
    return not world.touched_by_robot(f"{drawer}_drawer")


def is_at_rest(world: World, drawer: str) -> bool:
    """Whether the drawer stands still."""
    return abs(world.joint_speed(joint(drawer))) < _AT_REST


@dataclass(frozen=True)
class DrawerTask:
    """Open closed drawers, or close open ones.

    Official starts: every drawer from every stand. Fresh starts: a drawer at random, the robot on a line between two
    official stands. Mixed scenes: every other drawer is open or closed at random.

    Attributes:
        opens: whether drawers are to be opened.
        drawers: which of `DRAWERS` may be asked for.
        stands: where the robot may stand.
    """

    name: str
    opens: bool
    drawers: tuple[str, ...] = DRAWERS
    stands: tuple[PlanarPose, ...] = STANDS[VISUAL_MATCHING]
    max_steps: int = 113
    robot: Robot = ROBOT
    mount: Mount = MOUNT
    scene: Scene = SCENE

    @property
    def grid_size(self) -> int:
        return len(self.drawers) * len(self.stands)

    def in_setting(self, setting: str) -> "DrawerTask":
        """The task with the official stands of a setting."""
        return replace(self, stands=STANDS[setting])

    def official_start(self, episode_id: int) -> Start:
        drawer, stand = divmod(episode_id, len(self.stands))
        return self._start(self.drawers[drawer], self.stands[stand])

    def random_start(self, rng: np.random.Generator) -> Start:
        return self._start(str(rng.choice(self.drawers)), stand_between(self.stands, rng))

    def mixed_start(self, rng: np.random.Generator) -> Start:
        opened = {drawer for drawer in DRAWERS if rng.uniform() < 0.5}
        return self._start(str(rng.choice(self.drawers)), stand_between(self.stands, rng), frozenset(opened))

    def _start(self, drawer: str, stand: PlanarPose, opened: frozenset[str] = frozenset()) -> Start:
        """The start that asks for one drawer; others are closed unless named as opened."""
        opened = opened - {drawer} if self.opens else opened | {drawer}
        order = (drawer, *(other for other in DRAWERS if other != drawer))
        goals = tuple(Drawer(each, opens=each not in opened) for each in order)
        return Start({}, goals, stand, {joint(each): AJAR for each in order if each in opened})
