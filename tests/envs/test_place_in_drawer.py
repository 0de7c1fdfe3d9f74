"""Placing into drawers: SIMPLER's starts, the rule of two instructions, what counts as inside, and an expert."""

import math

import mujoco
import numpy as np
import pytest

import envs
from envs import experts, objects, tasks
from envs.geometry import PlanarPose
from envs.manipulation import ManipulationEnv
from envs.task import Start
from envs.tasks._drawer import DRAWERS, STANDS
from envs.tasks._place_in_drawer import OBJECTS, PlaceInDrawer, PlaceInDrawerTask, opening
from envs.variant import SETTINGS, VARIANT_AGGREGATION, VISUAL_MATCHING

APPLE = "google_robot_place_apple_in_closed_top_drawer"
NAMES = [f"google_robot_place_in_closed_{which}drawer" for which in ("", *map("{}_".format, DRAWERS))]
SEEDS = range(20)


@pytest.fixture(params=[APPLE, *NAMES], scope="module")
def task(request: pytest.FixtureRequest) -> PlaceInDrawerTask:
    return find(request.param)


@pytest.fixture
def env(apple: ManipulationEnv) -> ManipulationEnv:
    apple.reset(options={"episode_id": 4})
    return apple


@pytest.fixture(scope="module")
def apple() -> ManipulationEnv:
    return envs.make(APPLE, render=False)


def find(name: str) -> PlaceInDrawerTask:
    task = tasks.find(name)
    assert isinstance(task, PlaceInDrawerTask)
    return task


def asked(start: Start) -> PlaceInDrawer:
    assert isinstance(start.goals[0], PlaceInDrawer)
    return start.goals[0]


def hold(env: ManipulationEnv, steps: int) -> None:
    for _ in range(steps):
        env.step(env.hold_action)


def put_in(env: ManipulationEnv, position: float = 0.2) -> None:
    """Open the top drawer and lay the apple into it, at rest."""
    env.world.set_joint("top_drawer_joint", position)
    env.world.place("apple", PlanarPose(-0.295 + position + 0.2, 0.1), 0.685 - 0.05)
    hold(env, 2)


def test_the_official_grid_is_simpler_s() -> None:
    task = find(APPLE)
    assert task.grid_size == 27
    assert task.max_steps == 200
    starts = [task.official_start(episode) for episode in range(27)]
    assert [start.base for start in starts] == [stand for stand in STANDS[VISUAL_MATCHING][::3] for _ in range(9)]
    places = [(pose.x, pose.y) for pose in (start.objects["apple"] for start in starts)]
    grid = [(x, y) for x in np.linspace(-0.08, -0.02, 3) for y in np.linspace(-0.02, 0.08, 3)]
    assert np.allclose(places, grid * 3)
    assert asked(starts[0]).instruction == "open top drawer"
    aggregated = [(stand.x, stand.y, stand.yaw) for stand in task.in_setting(VARIANT_AGGREGATION).stands]
    assert np.allclose(aggregated, [(0.65, y, math.pi) for y in (-0.2, 0.0, 0.2)])


@pytest.mark.parametrize("name", NAMES)
def test_every_object_and_drawer_has_official_starts(name: str) -> None:
    task = find(name)
    starts = [task.official_start(episode) for episode in range(task.grid_size)]
    assert task.grid_size == 27 * len(task.drawers)
    assert {asked(start).drawer for start in starts} == set(task.drawers)
    assert {asked(start).source for start in starts} == set(OBJECTS)


def test_cans_and_bottles_lie_along_the_front(task: PlaceInDrawerTask) -> None:
    rotation = np.empty(9)
    for seed in SEEDS:
        start = task.random_start(np.random.default_rng(seed))
        size = objects.find(asked(start).source).size
        if max(size) < 1.5 * min(size) or asked(start).source == "sponge":
            continue
        mujoco.mju_quat2Mat(rotation, start.objects[asked(start).source].quaternion)
        along_front = np.abs(rotation.reshape(3, 3)[1])
        assert along_front @ size == pytest.approx(max(size))


@pytest.mark.parametrize("setting", SETTINGS)
def test_fresh_starts_are_between_the_official_ones(task: PlaceInDrawerTask, setting: str) -> None:
    moved = task.in_setting(setting)
    for seed in SEEDS:
        start = moved.random_start(np.random.default_rng(seed))
        pose = start.objects[asked(start).source]
        assert asked(start).source in task.objects
        assert asked(start).drawer in task.drawers
        assert -0.08 <= pose.x <= -0.02
        assert -0.02 <= pose.y <= 0.08
        assert start.base is not None
        assert min(stand.y for stand in moved.stands) <= start.base.y <= max(stand.y for stand in moved.stands)


def test_mixed_scenes_ask_for_either_object_and_any_drawer(task: PlaceInDrawerTask) -> None:
    for seed in SEEDS:
        start = task.mixed_start(np.random.default_rng(seed))
        goals = [goal for goal in start.goals if isinstance(goal, PlaceInDrawer)]
        assert len(start.objects) == 2
        assert {(goal.source, goal.drawer) for goal in goals} == {
            (name, each) for name in start.objects for each in DRAWERS
        }
        assert goals[0].source in task.objects
        assert goals[0].drawer in task.drawers
        one, other = start.objects.values()
        assert abs(one.y - other.y) > 0.15


def test_the_second_instruction_comes_after_100_steps(env: ManipulationEnv) -> None:
    for step in range(1, 103):
        info = env.step(env.hold_action)[4]
        assert info["is_final_subtask"] == (step > 100)
        assert info["instruction"] == ("place apple into top drawer" if step > 100 else "open top drawer")


def test_the_second_instruction_comes_when_it_is_asked_for(env: ManipulationEnv) -> None:
    hold(env, 3)
    env.judge.advance_subtask()
    assert env.judge.is_final_subtask
    assert env.step(env.hold_action)[4]["instruction"] == "place apple into top drawer"


def test_success_counts_only_under_the_second_instruction(env: ManipulationEnv) -> None:
    put_in(env)
    assert env.success.stats["has_contact"]
    assert not env.success.official
    env.judge.advance_subtask()
    hold(env, 1)
    assert env.success.official
    assert env.success.strict


@pytest.mark.parametrize(("position", "reached"), [(0.049, False), (0.051, True)])
def test_the_drawer_has_to_stay_open(env: ManipulationEnv, position: float, reached: bool) -> None:
    env.judge.advance_subtask()
    put_in(env)
    env.world.set_joint("top_drawer_joint", position)
    assert env.judge.update().official == reached


def test_a_drawer_that_was_open_once_is_remembered(env: ManipulationEnv) -> None:
    env.world.set_joint("top_drawer_joint", 0.16)
    assert env.judge.update().stats["is_drawer_open"]
    env.world.set_joint("top_drawer_joint", 0.0)
    assert env.judge.update().stats["is_drawer_open"]


def test_an_object_that_left_the_drawer_is_official_but_not_strict(env: ManipulationEnv) -> None:
    env.judge.advance_subtask()
    put_in(env)
    env.world.place("apple", PlanarPose(-0.2, 0.0), env.task.scene.surface)
    hold(env, 2)
    assert env.success.official
    assert not env.success.strict


def test_key_points_go_from_the_handle_to_the_object(env: ManipulationEnv) -> None:
    assert np.allclose(env.judge.keypoints().source, env.world.site("top_handle"))
    env.judge.advance_subtask()
    env.world.set_joint("top_drawer_joint", 0.2)
    hold(env, 1)
    points = env.judge.keypoints()
    assert np.allclose(points.source, env.world.position("apple"))
    assert np.allclose(points.target, opening(env.world, "top"))
    assert 0.02 < points.target[0] < -0.295 + 0.2 + 0.275


@pytest.mark.parametrize("episode", [0, 40, 80])
def test_the_expert_opens_waits_and_places(episode: int) -> None:
    env = envs.make("google_robot_place_in_closed_drawer", render=False)
    env.reset(options={"episode_id": episode})
    expert = experts.make(env)
    expert.reset()
    for step in range(200):
        env.step(expert.action())
        if step == 99:
            assert env.success.stats["is_drawer_open"]
            assert not env.success.stats["has_contact"]
    assert env.success.strict
