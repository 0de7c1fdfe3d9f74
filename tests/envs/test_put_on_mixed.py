"""Mixed scenes of put-on tasks: several instructions are valid in one picture, and each has its own success."""

import mujoco
import numpy as np
import pytest

import envs
from envs import experts, tasks
from envs.geometry import PlanarPose
from envs.manipulation import ManipulationEnv
from envs.tasks._layout import is_free, is_inside
from envs.tasks._put_on import PutOn, PutOnTask

NAMES = [name for name in envs.TASKS if name.startswith("widowx_")]
SEEDS = range(12)
ENVS: dict[str, ManipulationEnv] = {}


def environment(name: str, seed: int, goal: int = 0) -> ManipulationEnv:
    """The mixed environment of a task, just reset; made once."""
    if name not in ENVS:
        ENVS[name] = envs.make(name, scene="mixed", render=False)
    ENVS[name].reset(seed=seed, options={"goal": goal})
    return ENVS[name]


def put_on_task(name: str) -> PutOnTask:
    task = tasks.find(name)
    assert isinstance(task, PutOnTask)
    return task


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_in_the_way_of_anything(name: str) -> None:
    task = put_on_task(name)
    for seed in SEEDS:
        layout = task.mixed_start(np.random.default_rng(seed)).objects
        assert is_free(layout, margin=0.025)
        assert all(is_inside(each, pose, task.room) for each, pose in layout.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_offers_what_its_objects_allow_and_the_task_s_own_first(name: str) -> None:
    task = put_on_task(name)
    for seed in SEEDS:
        start = task.mixed_start(np.random.default_rng(seed))
        goals = [goal for goal in start.goals if isinstance(goal, PutOn)]
        words = [goal.instruction for goal in goals]
        assert goals[0] == task.goal
        assert 2 <= len(words) == len(set(words))
        assert set().union(*(goal.objects for goal in goals)) == set(start.objects)
        assert ("stack the yellow block on the green block" in words) == (
            "stack the green block on the yellow block" in words
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_other_goal_comes_up(name: str) -> None:
    task = put_on_task(name)
    starts = [task.mixed_start(np.random.default_rng(seed)) for seed in SEEDS]
    assert {goal for start in starts for goal in start.goals} == set(task.mixture.goals)


@pytest.mark.parametrize("name", NAMES)
def test_objects_stay_where_they_are_put_and_no_goal_is_reached_yet(name: str) -> None:
    for seed in range(4):
        env = environment(name, seed)
        for each, pose in env.start.objects.items():
            assert env.world.origin(each)[:2] == pytest.approx((pose.x, pose.y), abs=0.004)
            assert not env.world.touched_bodies(each) & set(env.world.objects)
        for goal in env.start.goals:
            assert not goal.judge(env.world).update().official


@pytest.mark.parametrize("name", NAMES)
def test_each_goal_has_its_own_success(name: str) -> None:
    env = environment(name, seed=1)
    for goal in env.start.goals:
        env.reset(seed=1)
        assert isinstance(goal, PutOn)
        judges = {each: each.judge(env.world) for each in env.start.goals}
        x, y, z = env.world.position(goal.target.name)
        env.world.place(goal.source.name, PlanarPose(x, y), z + goal.target.size[2] / 2 + 0.002)
        mujoco.mj_forward(env.world.model, env.world.data)
        env.world.advance(300)
        assert [each for each, judge in judges.items() if judge.update().strict] == [goal]


@pytest.mark.parametrize("name", NAMES)
def test_the_expert_does_what_it_is_told(name: str) -> None:
    env = environment(name, seed=1)
    expert = experts.make(env)
    for number, goal in enumerate(env.start.goals):
        _, info = env.reset(seed=1, options={"goal": number})
        assert info["instruction"] == goal.instruction
        expert.reset()
        while not expert.done and info["elapsed_steps"] < env.max_episode_steps:
            info = env.step(expert.action())[4]
        assert info["success_strict"]
