"""Move-near tasks: the starts are SIMPLER's, and success says what it should about states made by hand or an expert."""

import math

import numpy as np
import pytest

import envs
from envs import experts, objects, tasks
from envs.geometry import PlanarPose, Quaternion
from envs.manipulation import ManipulationEnv
from envs.task import Success
from envs.tasks._move_near import MoveNear

NAMES = ("google_robot_move_near", "google_robot_move_near_v0", "google_robot_move_near_v1")
COKE, REDBULL, APPLE = "opened_coke_can", "opened_redbull_can", "toy_apple"
COKE_NEAR_REDBULL = (
    24  # of the official starts; coke at (-0.33, 0.04), redbull at (-0.33, 0.34), apple at (-0.13, 0.19)
)
FALLEN: Quaternion = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)
ENVS: dict[str, ManipulationEnv] = {}


def environment(scene: str = "official") -> ManipulationEnv:
    """An environment without images, made once."""
    if scene not in ENVS:
        ENVS[scene] = envs.make(NAMES[0], scene=scene, render=False)
    return ENVS[scene]


def judged(moves: dict[str, PlanarPose], above: float = 0.0, settle: int = 200) -> Success:
    """Put objects of `COKE_NEAR_REDBULL` somewhere else, `above` [m] the table, let them settle, and judge."""
    env = environment()
    env.reset(options={"episode_id": COKE_NEAR_REDBULL})
    for name, pose in moves.items():
        env.world.place(name, pose, env.task.scene.surface + above)
    env.world.advance(settle)
    return env.judge.update()


@pytest.mark.parametrize(
    ("episode_id", "instruction", "places"),
    [
        (0, "move blue plastic bottle near pepsi can", [(-0.33, 0.04), (-0.33, 0.34), (-0.13, 0.19)]),
        (6, "move blue plastic bottle near pepsi can", [(-0.13, 0.04), (-0.33, 0.19), (-0.13, 0.34)]),
        (13, "move 7up can near sponge", [(-0.33, 0.04), (-0.33, 0.34), (-0.13, 0.19)]),
        (26, "move redbull can near coke can", [(-0.33, 0.04), (-0.33, 0.34), (-0.13, 0.19)]),
        (46, "move 7up can near sponge", [(-0.13, 0.04), (-0.33, 0.19), (-0.13, 0.34)]),
        (59, "move redbull can near pepsi can", [(-0.13, 0.04), (-0.33, 0.19), (-0.13, 0.34)]),
    ],
)
def test_starts_are_simplers(episode_id: int, instruction: str, places: list[tuple[float, float]]) -> None:
    task = tasks.find(NAMES[0])
    start = task.official_start(episode_id)
    assert task.grid_size == 60
    assert start.goals[0].instruction == instruction
    assert [(pose.x, pose.y) for pose in start.objects.values()] == places


def test_what_simpler_turns_by_a_quarter_is_turned() -> None:
    start = tasks.find(NAMES[0]).official_start(0)
    yaws = {name: pose.yaw for name, pose in start.objects.items()}
    assert yaws == {"blue_plastic_bottle": math.pi / 2, "opened_pepsi_can": 0.0, "toy_orange": math.pi / 2}


def test_robot_stands_where_simpler_puts_it() -> None:
    base = tasks.find(NAMES[0]).mount.base
    assert (base.x, base.y, base.yaw) == pytest.approx((0.35, 0.21, math.pi - 0.09))


@pytest.mark.parametrize("name", NAMES)
def test_every_scene_holds_six_goals_and_the_tasks_own_first(name: str) -> None:
    rng = np.random.default_rng(0)
    task = tasks.find(name)
    official = [task.official_start(episode_id) for episode_id in range(task.grid_size)]
    for start in (*official, task.random_start(rng), *(task.mixed_start(rng) for _ in range(20))):
        assert len({goal.instruction for goal in start.goals}) == 6
        assert len({objects.find(name).words for name in start.objects}) == 3
        assert all(
            isinstance(goal, MoveNear) and {goal.source, goal.target} <= set(start.objects) for goal in start.goals
        )


def test_versions_differ_only_in_name() -> None:
    starts = [[tasks.find(name).official_start(episode_id) for episode_id in range(60)] for name in NAMES]
    assert starts[0] == starts[1] == starts[2]


def test_standing_beside_the_target_is_strict_success() -> None:
    success = judged({COKE: PlanarPose(-0.33, 0.20)})
    assert success.official
    assert success.strict


def test_falling_or_floating_beside_the_target_is_only_official_success() -> None:
    for success in (
        judged({COKE: PlanarPose(-0.33, 0.20, lying=FALLEN)}),
        judged({COKE: PlanarPose(-0.33, 0.20)}, above=0.05, settle=1),
    ):
        assert success.official
        assert not success.strict
        assert not success.stats["standing"]


# Two boxes of 0.066 and 0.0585 square metres' edges: half their diagonals plus 0.10 m is 0.188 m.
@pytest.mark.parametrize(("distance", "near"), [(0.186, True), (0.190, False)])
def test_near_means_less_than_ten_centimetres_between_the_circles(distance: float, near: bool) -> None:
    assert judged({COKE: PlanarPose(-0.33, 0.34 - distance)}).stats["near_tgt_obj"] == near


def test_source_must_be_nearest_to_the_target() -> None:
    success = judged({COKE: PlanarPose(-0.24, 0.21)})  # 0.11 m from the apple, 0.16 m from the redbull can
    assert success.stats["near_tgt_obj"]
    assert not success.stats["is_closest_to_tgt"]
    assert not success.official


def test_bringing_the_target_to_the_source_is_no_success() -> None:
    success = judged({REDBULL: PlanarPose(-0.33, 0.18)})
    assert success.stats["near_tgt_obj"]
    assert success.stats["moved_wrong_obj"]
    assert not success.stats["moved_correct_obj"]
    assert not success.official


def test_third_object_off_the_table_is_no_success() -> None:
    env = environment()
    env.reset(options={"episode_id": COKE_NEAR_REDBULL})
    env.world.place(COKE, PlanarPose(-0.33, 0.20), env.task.scene.surface)
    env.world.place(APPLE, PlanarPose(-0.13, 0.19), env.task.scene.surface - 0.03)
    env.world.advance(1)
    success = env.judge.update()
    assert not success.stats["all_obj_keep_height"]
    assert not success.official


def test_knocking_the_target_over_is_only_official_success() -> None:
    success = judged({COKE: PlanarPose(-0.33, 0.20), REDBULL: PlanarPose(-0.33, 0.34, lying=FALLEN)})
    assert success.official
    assert not success.strict


@pytest.mark.parametrize(("scene", "goal"), [("official", 0), ("official", 3), ("mixed", 5)])
def test_expert_solves_it(scene: str, goal: int) -> None:
    env = environment(scene)
    info = env.reset(seed=11, options={"goal": goal})[1]
    assert not info["success"]
    expert = experts.make(env)
    expert.reset()
    truncated = False
    while not truncated:
        truncated, info = env.step(expert.action())[3:]
    assert expert.done
    assert info["success_strict"]
