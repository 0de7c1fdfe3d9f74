"""Drawers: SIMPLER's starts, when a drawer counts as open or closed, and an expert for each."""

import math

import numpy as np
import pytest

import envs
from envs import experts, tasks
from envs.experts.drawer import DrawerExpert
from envs.manipulation import ManipulationEnv
from envs.task import Start
from envs.tasks._drawer import DRAWERS, STANDS, Drawer, DrawerTask
from envs.variant import SETTINGS, VARIANT_AGGREGATION, VISUAL_MATCHING

NAMES = [
    f"google_robot_{verb}_{which}drawer" for verb in ("open", "close") for which in ("", *map("{}_".format, DRAWERS))
]
SEEDS = range(20)


@pytest.fixture(params=NAMES, scope="module")
def task(request: pytest.FixtureRequest) -> DrawerTask:
    task = tasks.find(request.param)
    assert isinstance(task, DrawerTask)
    return task


@pytest.fixture(scope="module")
def opening() -> ManipulationEnv:
    return envs.make("google_robot_open_top_drawer", render=False)


@pytest.fixture(scope="module")
def closing() -> ManipulationEnv:
    return envs.make("google_robot_close_top_drawer", render=False)


@pytest.fixture(scope="module")
def mixed() -> ManipulationEnv:
    return envs.make("google_robot_open_drawer", scene="mixed", render=False)


def asked(start: Start) -> Drawer:
    assert isinstance(start.goals[0], Drawer)
    return start.goals[0]


def run(env: ManipulationEnv, steps: int = 113) -> bool:
    """Let the expert work on the episode that the environment has been reset to; whether it succeeds strictly."""
    expert = experts.make(env)
    assert isinstance(expert, DrawerExpert)
    expert.reset()
    for _ in range(steps):
        env.step(expert.action())
        if expert.done:
            break
    return env.success.strict


def test_official_starts_are_every_drawer_from_simpler_s_nine_stands(task: DrawerTask) -> None:
    assert task.grid_size == 9 * len(task.drawers)
    assert task.max_steps == 113
    starts = [task.official_start(episode) for episode in range(task.grid_size)]
    assert [asked(start).drawer for start in starts] == [drawer for drawer in task.drawers for _ in range(9)]
    assert all(
        start.base == stand for start, stand in zip(starts, STANDS[VISUAL_MATCHING] * len(task.drawers), strict=True)
    )


def test_stands_are_simpler_s() -> None:
    a2, b2, c1 = (STANDS[VISUAL_MATCHING][number] for number in (2, 5, 7))
    assert (a2.x, a2.y, a2.yaw) == (0.889, -0.203, math.pi - 0.06)
    assert (b2.x, b2.y, b2.yaw) == (0.851, 0.035, math.pi)
    assert (c1.x, c1.y, c1.yaw) == (0.765, 0.222, math.pi - 0.025)
    places = [(stand.x, stand.y, stand.yaw) for stand in STANDS[VARIANT_AGGREGATION]]
    assert np.allclose(places, [(x, y, math.pi) for x in np.linspace(0.65, 0.85, 3) for y in np.linspace(-0.2, 0.2, 3)])


def test_a_setting_changes_nothing_but_the_stands(task: DrawerTask) -> None:
    for setting in SETTINGS:
        moved = task.in_setting(setting)
        assert moved.stands == STANDS[setting]
        assert moved.in_setting(VISUAL_MATCHING) == task
        assert envs.make(task.name, setting=setting, render=False).task == moved


def test_only_a_drawer_to_be_closed_starts_open(task: DrawerTask) -> None:
    for start in (task.official_start(0), task.random_start(np.random.default_rng(0))):
        open_drawers = {} if task.opens else {f"{asked(start).drawer}_drawer_joint": 0.2}
        assert start.joints == open_drawers


@pytest.mark.parametrize("setting", SETTINGS)
def test_fresh_starts_are_between_the_official_ones_and_all_differ(task: DrawerTask, setting: str) -> None:
    moved = task.in_setting(setting)
    starts = [moved.random_start(np.random.default_rng(seed)) for seed in SEEDS]
    official = np.array([(stand.x, stand.y, stand.yaw) for stand in moved.stands])
    fresh = np.array([(start.base.x, start.base.y, start.base.yaw) for start in starts if start.base])
    assert len(np.unique(fresh, axis=0)) == len(starts)
    assert (fresh >= official.min(axis=0)).all()
    assert (fresh <= official.max(axis=0)).all()
    assert {asked(start).drawer for start in starts} == set(task.drawers)


def test_every_drawer_can_be_asked_for_and_the_task_s_own_comes_first(task: DrawerTask) -> None:
    for seed in SEEDS:
        start = task.mixed_start(np.random.default_rng(seed))
        goals = [goal for goal in start.goals if isinstance(goal, Drawer)]
        assert {goal.drawer for goal in goals} == set(DRAWERS)
        assert goals[0].drawer in task.drawers
        assert goals[0].opens == task.opens
        assert all(goal.opens == (f"{goal.drawer}_drawer_joint" not in start.joints) for goal in goals)


def test_mixed_scenes_have_open_and_closed_drawers(task: DrawerTask) -> None:
    starts = [task.mixed_start(np.random.default_rng(seed)) for seed in SEEDS]
    assert {len(start.joints) for start in starts} >= {1, 2}


def test_untouched_drawers_stay_where_they_are(mixed: ManipulationEnv) -> None:
    for seed in range(4):
        mixed.reset(seed=seed)
        for _ in range(15):
            mixed.step(mixed.hold_action)
        for drawer in DRAWERS:
            joint = f"{drawer}_drawer_joint"
            assert mixed.world.joint(joint) == pytest.approx(mixed.start.joints.get(joint, 0.0), abs=1e-3)


@pytest.mark.parametrize(
    ("position", "opened", "closed"), [(0.05, False, True), (0.051, False, False), (0.15, True, False)]
)
def test_simpler_s_thresholds(
    opening: ManipulationEnv, closing: ManipulationEnv, position: float, opened: bool, closed: bool
) -> None:
    for env, reached in ((opening, opened), (closing, closed)):
        env.reset(seed=0)
        env.world.set_joint("top_drawer_joint", position)
        success = env.judge.update()
        assert success.official == success.strict == reached
        assert success.stats["qpos"] == position


def test_strict_success_needs_a_drawer_at_rest(opening: ManipulationEnv) -> None:
    opening.reset(seed=0)
    opening.world.set_joint("top_drawer_joint", 0.2)
    opening.world.data.joint("top_drawer_joint").qvel[0] = 0.05
    success = opening.judge.update()
    assert success.official
    assert not success.strict


def test_strict_success_needs_a_free_handle(opening: ManipulationEnv) -> None:
    opening.reset(options={"episode_id": 4})
    expert = experts.make(opening)
    expert.reset()
    held = [opening.step(expert.action())[4] for _ in range(60)]
    officially = [info for info in held if info["success"]]
    assert not officially[0]["success_strict"]
    assert not officially[0]["episode_stats"]["released"]
    assert officially[-1]["success_strict"]


def test_key_points_are_the_handle_and_where_it_is_to_go(opening: ManipulationEnv, closing: ManipulationEnv) -> None:
    for env, way in ((opening, 0.2), (closing, -0.2)):
        env.reset(seed=0)
        points = env.judge.keypoints()
        assert np.allclose(points.source, env.world.site("top_handle"))
        assert np.allclose(points.target - points.source, [way, 0, 0], atol=1e-3)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["google_robot_open_drawer", "google_robot_close_drawer"])
def test_the_expert_handles_all_three_drawers(name: str, setting: str) -> None:
    env = envs.make(name, setting=setting, render=False)
    for episode in (2, 13, 24):
        env.reset(options={"episode_id": episode})
        assert run(env)


@pytest.mark.parametrize("goal", range(3))
def test_the_expert_does_what_is_asked_for_among_open_and_closed_drawers(mixed: ManipulationEnv, goal: int) -> None:
    mixed.reset(seed=1, options={"goal": goal})
    before = [mixed.world.joint(f"{drawer}_drawer_joint") for drawer in DRAWERS]
    assert run(mixed)
    after = [mixed.world.joint(f"{drawer}_drawer_joint") for drawer in DRAWERS]
    moved = [drawer for drawer, old, new in zip(DRAWERS, before, after, strict=True) if abs(new - old) > 0.02]
    assert isinstance(mixed.goal, Drawer)
    assert moved == [mixed.goal.drawer]
