"""Every variant changes the picture of the tasks it belongs to, and looks alone never change the physics."""

from collections import Counter

import mujoco
import numpy as np
import pytest

import envs
from envs import tasks, variants
from envs.errors import EnvError, UnknownNameError
from envs.manipulation import ManipulationEnv
from envs.task import Task
from envs.variant import VARIANT_AGGREGATION, VISUAL_MATCHING, Variant, unchanged

SHOWN_BY = {
    "base": "widowx_spoon_on_towel",
    "cabinet_2": "google_robot_close_top_drawer",
    "cabinet_3": "google_robot_close_top_drawer",
    "no_distractors": "google_robot_move_near",
}
ALL = [variants.find(name) for name in variants.names()]
SUITE_SIZES = {  # SIMPLER's for the Google robot: averaged variants, base included
    "google_robot_pick_coke_can": (4, 9),
    "google_robot_move_near": (4, 8),
    "google_robot_open_drawer": (4, 7),
    "google_robot_place_apple_in_closed_top_drawer": (4, 7),
    "widowx_spoon_on_towel": (1, 9),
    "widowx_put_eggplant_in_basket": (1, 7),
}


def make(name: str, variant: str) -> ManipulationEnv:
    return envs.make(name, setting=VARIANT_AGGREGATION, variant=variant, image_size=(64, 80))


def trajectory(env: ManipulationEnv) -> np.ndarray:
    """Positions after ten steps of an official episode."""
    env.reset(options={"episode_id": 3})
    for _ in range(10):
        env.step(np.array([0.01, 0.0, -0.01, 0.0, 0.0, 0.05, -1.0], np.float32))
    return env.world.data.qpos.copy()


@pytest.fixture(scope="module")
def base() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Task -> its first picture and its trajectory."""
    found = {}
    for name in {SHOWN_BY.get(variant.name, "google_robot_pick_coke_can") for variant in ALL}:
        env = make(name, "base")
        env.reset(options={"episode_id": 3})
        found[name] = env.render(), trajectory(env)
        env.close()
    return found


@pytest.mark.parametrize("variant", ALL[1:], ids=lambda variant: variant.name)
def test_the_picture_changes_and_physics_only_with_the_start(
    variant: Variant, base: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    name = SHOWN_BY.get(variant.name, "google_robot_pick_coke_can")
    env = make(name, variant.name)
    _, info = env.reset(options={"episode_id": 3})
    picture, positions = base[name]
    difference = np.abs(env.render().astype(float) - picture).mean()
    assert info["variant"] == variant.name
    assert difference > 0.1
    if variant.change_start is unchanged:
        np.testing.assert_array_equal(trajectory(env), positions)
    env.close()


@pytest.mark.parametrize("name", SUITE_SIZES)
def test_suites_are_as_large_as_simplers(name: str) -> None:
    task = tasks.find(name)
    suites = [variants.suite(task, setting) for setting in (VISUAL_MATCHING, VARIANT_AGGREGATION)]
    assert tuple(sum(variant.in_average for variant in suite) for suite in suites) == SUITE_SIZES[name]
    assert all(suite[0].name == "base" for suite in suites)


@pytest.mark.parametrize("name", ["google_robot_open_drawer", "widowx_put_eggplant_in_basket"])
@pytest.mark.parametrize("variant", ALL, ids=lambda variant: variant.name)
def test_every_variant_composes_with_any_task(variant: Variant, name: str) -> None:
    task = tasks.find(name)
    start = variant.change_start(task, task.official_start(0), np.random.default_rng(0))
    spec = task.robot.spec(task.mount)
    task.scene.build(spec)
    variant.edit(spec)
    assert spec.compile().nbody > 1
    assert start.goals[0] == task.official_start(0).goals[0]


@pytest.mark.parametrize("name", ["distractors_less", "distractors_more"])
@pytest.mark.parametrize("task_name", ["google_robot_pick_coke_can", "widowx_stack_cube"])
def test_distractors_come_to_rest_standing_clear_of_everything(name: str, task_name: str) -> None:
    task, variant = tasks.find(task_name), variants.find(name)
    for seed in range(20):
        before = task.random_start(np.random.default_rng(seed))
        after = variant.change_start(task, before, np.random.default_rng(seed))
        added = set(after.objects) - set(before.objects)
        assert len(added) == (4 if name == "distractors_less" else 6)
        assert after.objects.items() >= before.objects.items()
        again = variant.change_start(task, before, np.random.default_rng(seed))
        assert again == after
    env = make(task_name, name)
    for seed in range(2):
        env.reset(seed=seed)
        touched = Counter(body for thing in env.world.objects for body in env.world.touched_bodies(thing))
        assert not set(touched) & set(env.world.objects)
    env.close()


def test_no_distractors_leaves_only_what_the_instruction_names() -> None:
    task = tasks.find("google_robot_move_near")
    start = variants.find("no_distractors").change_start(task, task.official_start(3), np.random.default_rng(0))
    assert len(start.objects) == 2
    assert len(start.goals) == 1


def test_cameras_tilt_as_simplers_head_does() -> None:
    task = tasks.find("google_robot_pick_coke_can")
    for name, tilt in (("camera_lower", 0.9351361), ("camera_higher", 0.6651361)):
        edited, turned = task.robot.spec(task.mount), task.robot.spec(task.mount)
        variants.find(name).edit(edited)
        turned.body("head_tilt").quat = [np.cos(tilt / 2), 0.0, np.sin(tilt / 2), 0.0]
        seen, expected = (_camera_pose(spec, task) for spec in (edited, turned))
        np.testing.assert_allclose(seen, expected, atol=1e-6)


def _camera_pose(spec: mujoco.MjSpec, task: Task) -> np.ndarray:
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = data.camera(task.robot.camera)
    return np.concatenate([camera.xpos, camera.xmat])


def test_unknown_variants_and_settings_are_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="lighting_darker"):
        variants.find("darker")
    with pytest.raises(EnvError, match="visual_matching"):
        variants.suite(tasks.find("widowx_spoon_on_towel"), "photo")
