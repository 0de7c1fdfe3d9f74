"""Pick tasks: the starts are SIMPLER's, and success says what it should about states made by hand or an expert."""

import numpy as np
import pytest

import envs
from envs import experts, objects, tasks
from envs.geometry import matrix_from_quaternion
from envs.manipulation import ManipulationEnv
from envs.task import Success, Task
from envs.tasks._pick import OBJECTS, ORIENTATIONS, Pick
from envs.tasks._scatter import footprint, scattered

COKE, HORIZONTAL, VERTICAL, STANDING, OBJECT = NAMES = (
    *(f"google_robot_pick_{which}coke_can" for which in ("", "horizontal_", "vertical_", "standing_")),
    "google_robot_pick_object",
)
CAN = "opened_coke_can"
ENVS: dict[tuple[str, str], ManipulationEnv] = {}


def environment(name: str, scene: str = "official", variant: str = "base") -> ManipulationEnv:
    """An environment without images, made once."""
    key = (name, scene + variant)
    if key not in ENVS:
        setting = "visual_matching" if variant == "base" else "variant_aggregation"
        ENVS[key] = envs.make(name, setting=setting, variant=variant, scene=scene, render=False)
    return ENVS[key]


def raise_to(env: ManipulationEnv, name: str, height: float) -> Success:
    """Hold an object `height` [m] above where it would stand, and judge."""
    world = env.world
    world.place(name, env.start.objects[name], env.task.scene.surface + height)
    world.advance(1)
    return env.judge.update()


def lying_along(task: Task, episode_id: int) -> int:
    """Number of the world axis along which the object of a start has its own z axis."""
    (pose,) = task.official_start(episode_id).objects.values()
    return int(np.abs(matrix_from_quaternion(pose.quaternion)[:, 2]).argmax())


# --obj-init-x -0.35 -0.12 5 --obj-init-y -0.02 0.42 5 of SimplerEnv's `rt1_pick_coke_can_*.sh`, x in the outer loop.
@pytest.mark.parametrize("name", [HORIZONTAL, VERTICAL, STANDING])
@pytest.mark.parametrize(
    ("episode_id", "place"),
    [(0, (-0.35, -0.02)), (1, (-0.35, 0.09)), (5, (-0.2925, -0.02)), (12, (-0.235, 0.2)), (24, (-0.12, 0.42))],
)
def test_places_are_simplers_grid(name: str, episode_id: int, place: tuple[float, float]) -> None:
    task = tasks.find(name)
    (pose,) = task.official_start(episode_id).objects.values()
    assert task.grid_size == 25
    assert (pose.x, pose.y) == pytest.approx(place)


def test_orientations_are_what_the_names_say() -> None:
    across, away, upright = 1, 0, 2  # axes of the world: the camera looks along -x
    assert lying_along(tasks.find(HORIZONTAL), 0) == across
    assert lying_along(tasks.find(VERTICAL), 0) == away
    assert lying_along(tasks.find(STANDING), 0) == upright
    task = tasks.find(COKE)
    assert [lying_along(task, episode_id) for episode_id in range(task.grid_size)] == [across] * 25 + [away] * 25 + [
        upright
    ] * 25


def test_every_object_is_picked_in_every_orientation() -> None:
    task = tasks.find(OBJECT)
    starts = [task.official_start(episode_id) for episode_id in range(task.grid_size)]
    assert {start.goals[0].instruction for start in starts[: len(OBJECTS)]} == {
        f"pick {objects.find(name).words}" for name in OBJECTS
    }
    assert len(starts) == 3 * len(OBJECTS) * len(ORIENTATIONS)


def test_robot_stands_where_simpler_puts_it() -> None:
    mount = tasks.find(COKE).mount
    assert (mount.base.x, mount.base.y, mount.height) == pytest.approx((0.35, 0.20, 0.06205 + 0.017))


@pytest.mark.parametrize("name", [COKE, OBJECT])
def test_fresh_starts_fill_simplers_rectangle(name: str) -> None:
    rng = np.random.default_rng(0)
    task = tasks.find(name)
    poses = [next(iter(task.random_start(rng).objects.values())) for _ in range(300)]
    places = np.array([(pose.x, pose.y) for pose in poses])
    assert places.min(axis=0) == pytest.approx((-0.35, -0.02), abs=0.01)
    assert places.max(axis=0) == pytest.approx((-0.12, 0.42), abs=0.01)
    assert len({pose.lying for pose in poses}) >= len(ORIENTATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_scenes_hold_several_goals_and_the_tasks_own_first(name: str) -> None:
    rng = np.random.default_rng(1)
    task = tasks.find(name)
    own = {task.official_start(episode_id).goals[0].instruction for episode_id in range(task.grid_size)}
    for _ in range(50):
        start = task.mixed_start(rng)
        instructions = [goal.instruction for goal in start.goals]
        assert 3 <= len(instructions) == len(set(instructions)) == len(start.objects) <= 5
        assert instructions[0] in own
        assert tuple(start.objects) == tuple(goal.source for goal in start.goals if isinstance(goal, Pick))


def test_scattered_things_keep_apart() -> None:
    radii = [0.05, 0.07, 0.06, 0.02]
    places = np.array(scattered(np.random.default_rng(0), radii, (0.0, 0.0), (0.3, 0.4), gap=0.05))
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    needed = np.add.outer(radii, radii) + 0.05
    assert (distances >= needed)[~np.eye(4, dtype=bool)].all()
    assert footprint(CAN) == pytest.approx(np.hypot(0.033, 0.033))


def test_success_is_lost_with_the_object_until_it_was_up_for_five_steps() -> None:
    env = environment(STANDING)
    env.reset(seed=0)
    heights = [0.005, 0.05, 0.0, 0.05, 0.05, 0.05, 0.015, 0.05, 0.0]
    judged = [raise_to(env, CAN, height) for height in heights]
    assert [success.official for success in judged] == [False, True, False, True, True, True, True, True, True]
    assert [success.stats["n_lift_significant"] for success in judged] == [0, 1, 1, 2, 3, 4, 4, 5, 5]
    assert not any(success.strict or success.stats["grasped"] for success in judged)  # nobody held it


def test_lifting_another_object_is_no_success() -> None:
    env = environment(OBJECT, "mixed")
    env.reset(seed=0)
    own, other, *_ = env.start.objects
    assert not raise_to(env, other, 0.1).official
    assert raise_to(env, own, 0.1).official


def test_strict_success_ends_when_the_object_is_dropped() -> None:
    env = environment(HORIZONTAL)
    info = env.reset(options={"episode_id": 12})[1]
    expert = experts.make(env)
    expert.reset()
    while not expert.done:
        info = env.step(expert.action())[4]
    assert info["success"]
    assert info["success_strict"]
    for _ in range(8):
        info = env.step(np.array([0, 0, 0, 0, 0, 0, 1], np.float32))[4]
    assert info["success"] == (info["episode_stats"]["n_lift_significant"] >= 5)
    assert not info["success_strict"]


@pytest.mark.parametrize(
    ("name", "scene", "variant", "goal"),
    [
        (HORIZONTAL, "official", "base", 0),
        (STANDING, "official", "distractors_more", 0),
        (OBJECT, "mixed", "base", 1),
        (OBJECT, "mixed", "base", 2),
    ],
)
def test_expert_solves_it(name: str, scene: str, variant: str, goal: int) -> None:
    env = environment(name, scene, variant)
    info = env.reset(seed=5, options={"goal": goal})[1]
    assert info["instruction"] == info["instructions"][goal]
    assert not info["success"]
    expert = experts.make(env)
    expert.reset()
    truncated = False
    while not truncated:
        action = expert.action()
        assert np.linalg.norm(action[:3]) <= 0.1001
        assert np.linalg.norm(action[3:6]) <= 0.3501
        truncated, info = env.step(action)[3:]
    assert expert.done
    assert info["success_strict"]
