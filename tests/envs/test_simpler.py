"""The adapter speaks SimplerEnv: a script written for it runs, with its actions, options, observations and info."""

import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import envs
import envs.simpler as simpler_env
from envs import variants
from envs.errors import EnvError
from envs.geometry import matrix_from_quaternion
from envs.simpler import SimplerEnv, get_image_from_maniskill2_obs_dict

ROOT = Path(__file__).parents[2]
SPOON, CAN, PLACE = "widowx_spoon_on_towel", "google_robot_pick_coke_can", "google_robot_place_in_closed_top_drawer"
CLOSE = "google_robot_close_drawer"
IDLE = np.zeros(7)
Make = Callable[[str], SimplerEnv]


@pytest.fixture(scope="module")
def made() -> Iterator[Make]:
    """One environment of each task that is asked for."""
    known: dict[str, SimplerEnv] = {}
    yield lambda name: known.setdefault(name, known.get(name) or simpler_env.make(name))
    for env in known.values():
        env.close()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "examples" / "simpler_script.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commanded(gripper: float) -> np.ndarray:
    return np.array([0, 0, 0, 0, 0, 0, gripper])


def openings(env: SimplerEnv, *grippers: float) -> list[float]:
    """The gripper's opening after each of some commands."""
    return [float(env.step(commanded(gripper))[0]["agent"]["eef_pos"][7]) for gripper in grippers]


@pytest.mark.parametrize("task", [SPOON, CAN])
def test_the_example_script_succeeds_with_the_expert(made: Make, script: ModuleType, task: str) -> None:
    env = made(task)
    assert script.run_episode(env, script.ExpertPolicy(env), episode_id=3)


def test_the_example_script_goes_to_the_step_limit_with_random_actions(script: ModuleType) -> None:
    env = simpler_env.make(SPOON, max_episode_steps=5)
    assert not script.run_episode(env, script.RandomPolicy(env), episode_id=0)
    assert env.elapsed_steps == 5
    env.close()


def test_it_has_simplers_names() -> None:
    assert tuple(simpler_env.ENVIRONMENTS) == envs.SIMPLER
    with pytest.raises(EnvError, match=SPOON):
        simpler_env.make("widowx_spoon_on_plate")


@pytest.mark.parametrize(
    ("task", "uid", "camera", "size", "seen", "joints", "rates"),
    [
        (SPOON, "widowx", "3rd_view_camera", (480, 640), "spoon", 8, (5, 500)),
        (CAN, "google_robot_static", "overhead_camera", (512, 640), "opened_coke_can", 11, (3, 513)),
    ],
)
def test_observations_are_maniskills(
    made: Make, task: str, uid: str, camera: str, size: tuple[int, int], seen: str, joints: int, rates: tuple[int, int]
) -> None:
    env = made(task)
    obs, _ = env.reset(seed=0)
    image = get_image_from_maniskill2_obs_dict(env, obs)
    assert env.unwrapped is env
    assert (env.robot_uid, env.camera_name, (env.control_freq, env.sim_freq)) == (uid, camera, rates)
    assert env.observation_space.contains(obs)
    assert image is obs["image"][camera]["rgb"]
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    segments = obs["image"][camera]["Segmentation"]
    assert (segments.shape, segments.dtype) == ((*size, 4), np.uint32)
    assert env.task_env.world.model.body(seen).id in segments[..., 1]
    assert obs["agent"]["qpos"].shape == obs["agent"]["qvel"].shape == (joints,)


def test_qpos_is_simplers_initial_one(made: Make) -> None:
    initial = [-0.26394572, 0.08319134, 0.50176115, 1.15685903, 0.02858367, 1.5925982, -1.08065296, 0, 0]
    obs, _ = made(CAN).reset(seed=0)
    assert obs["agent"]["qpos"] == pytest.approx([*initial, -0.00285961, 0.7851361], abs=5e-3)


@pytest.mark.parametrize("task", [SPOON, CAN])
def test_poses_agree_with_each_other(made: Make, task: str) -> None:
    obs, _ = made(task).reset(seed=0)
    base, tool, in_base = obs["agent"]["base_pose"], obs["extra"]["tcp_pose"], obs["agent"]["eef_pos"]
    turn = matrix_from_quaternion(base[3:].astype(float))
    assert base[:3] + turn @ in_base[:3] == pytest.approx(tool[:3], abs=1e-5)
    rotations = [matrix_from_quaternion(pose[3:7].astype(float)) for pose in (in_base, tool)]
    assert turn @ rotations[0] == pytest.approx(rotations[1], abs=1e-5)


def test_motions_are_metres_and_radians_in_the_base_frame(made: Make) -> None:
    env = made(SPOON)
    before = env.reset(seed=0)[0]["agent"]["controller"]["arm"]["target_pose"]
    after = env.step(np.array([0.01, -0.02, 0.03, 0, 0, 0, 1.0]))[0]["agent"]["controller"]["arm"]["target_pose"]
    assert after[:3] - before[:3] == pytest.approx([0.01, -0.02, 0.03], abs=1e-6)
    turned = env.step(np.array([0, 0, 0, 0, 0, 0.2, 1.0]))[0]["agent"]["controller"]["arm"]["target_pose"]
    change = matrix_from_quaternion(turned[3:].astype(float)) @ matrix_from_quaternion(after[3:].astype(float)).T
    assert math.atan2(change[1, 0], change[0, 0]) == pytest.approx(0.2, abs=1e-5)


def test_the_widowx_gripper_takes_plus_one_as_open(made: Make) -> None:
    env = made(SPOON)
    env.reset(seed=0)
    closing = openings(env, *[-1.0] * 4)
    assert closing[-1] < 0.1 < closing[0] < 1
    assert openings(env, *[1.0] * 4)[-1] == pytest.approx(1.0)


def test_the_google_gripper_takes_plus_one_as_a_step_towards_closed(made: Make) -> None:
    env = made(CAN)
    env.reset(seed=0)
    closing = openings(env, 1.0, 0.0, 0.0, 0.0, 0.0)  # nothing repeats the last target
    assert closing[0] < 1
    assert closing[-1] < 0.3
    assert openings(env, -1.0, 0.0, 0.0, 0.0, 0.0)[-1] == pytest.approx(1.0, abs=0.02)


def test_the_google_gripper_s_steps_add_up_from_where_it_was_left(made: Make) -> None:
    env = made(CAN)
    env.reset(seed=0)
    targets = [env.step(commanded(0.1))[0]["agent"]["controller"]["gripper"]["target_qpos"] for _ in range(3)]
    steps = np.diff([-0.01, *(target[0] for target in targets)])
    assert steps[0] == pytest.approx(0.131, abs=2e-3)
    assert steps[1:] == pytest.approx(0.131, abs=0.02)  # less what the fingers lag behind


def test_an_environment_that_nobody_seeded_repeats_itself() -> None:
    sequences = []
    for _ in range(2):
        env = simpler_env.make(SPOON)
        sequences.append([env.reset()[1]["obj_init_pose_wrt_robot_base"].p for _ in range(2)])
        env.close()
    assert np.array_equal(*sequences)
    assert not np.array_equal(*sequences[0])


def test_a_seed_repeats_an_episode_and_what_follows(made: Make) -> None:
    env = made(CAN)
    first, second = ([env.reset(seed=seed)[0]["agent"]["qpos"] for seed in (5, None)] for _ in range(2))
    assert np.array_equal(first, second)


def test_an_episode_id_is_the_official_start(made: Make) -> None:
    env, underneath = made(SPOON), envs.make(SPOON, render=False)
    _, info = env.reset(options={"obj_init_options": {"episode_id": 7}})
    underneath.reset(options={"episode_id": 7})
    assert info["episode_id"] == 7
    assert np.array_equal(env.task_env.world.data.qpos, underneath.world.data.qpos)
    with pytest.raises(EnvError, match="24 official starts"):
        env.reset(options={"obj_init_options": {"episode_id": 24}})


def test_done_is_success_now(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    env = made(CLOSE)
    env.reset(options={"obj_init_options": {"cabinet_init_qpos": 0.2}})
    _, reward, done, truncated, info = env.step(IDLE)
    assert (reward, done, truncated, info["success"]) == (0.0, False, False, False)
    env.reset(options={"obj_init_options": {"cabinet_init_qpos": 0.04}})
    for _ in range(2):  # and stays it: episodes go on
        _, reward, done, truncated, info = env.step(IDLE)
        assert (reward, done, truncated, info["success"]) == (1.0, True, False, True)
    assert info["qpos"] == info["episode_stats"]["qpos"] == pytest.approx(0.04, abs=2e-3)


def test_a_task_of_two_instructions_goes_on_when_it_is_told(made: Make) -> None:
    env = made(PLACE)
    env.reset(seed=0)
    assert env.get_language_instruction() == "open top drawer"
    assert not env.is_final_subtask()
    env.advance_to_next_subtask()
    assert env.get_language_instruction().startswith("place ")
    assert env.is_final_subtask()
    env.step(IDLE)
    assert env.is_final_subtask()


def test_objects_stand_where_they_are_wanted(made: Make) -> None:
    env = made(CAN)
    for orientation, axis in (("upright", 2), ("lr_switch", 1), ("laid_vertically", 0)):
        env.reset(seed=1, options={"obj_init_options": {"init_xy": [-0.2, 0.1], "orientation": orientation}})
        world = env.task_env.world
        assert world.origin("opened_coke_can")[:2] == pytest.approx([-0.2, 0.1], abs=5e-3)
        assert abs(world.rotation("opened_coke_can")[axis, 2]) > 0.99


def test_the_robot_stands_where_it_is_wanted(made: Make) -> None:
    turned = [0.0, 0.0, math.sin(math.pi / 2 - 0.05), math.cos(math.pi / 2 - 0.05)]  # w x y z with w and z exchanged
    options = {"robot_init_options": {"init_xy": [0.4, 0.15], "init_rot_quat": [turned[3], 0, 0, turned[2]]}}
    obs, info = made(CAN).reset(seed=1, options=options)
    assert obs["agent"]["base_pose"] == pytest.approx([0.4, 0.15, 0.07905, turned[3], 0, 0, turned[2]], abs=1e-6)
    assert info["model_id"] == "opened_coke_can"


def test_reset_info_says_where_things_are(made: Make) -> None:
    _, info = made(SPOON).reset(options={"obj_init_options": {"episode_id": 0}, "reconfigure": True})
    place = info["episode_source_obj_init_pose_wrt_robot_base"]
    assert (info["scene_name"], info["urdf_version"], info["rgb_overlay_path"]) == ("bridge_table", "", None)
    assert (info["episode_source_obj_name"], info["episode_target_obj_name"]) == ("spoon", "towel")
    assert place.p[:2] == pytest.approx([0.147 + 0.235, 0.028 + 0.075], abs=5e-3)  # the base looks along -x
    assert place.q.shape == (4,)
    _, info = made(PLACE).reset(seed=0)
    assert info["drawer_pose_wrt_robot_base"].p[2] > info["cabinet_pose_wrt_robot_base"].p[2]


@pytest.mark.parametrize(
    ("task", "options", "word"),
    [
        (CAN, {"obj_init_option": {}}, "obj_init_options"),
        (CAN, {"obj_init_options": {"init_z": 1.0}}, "init_xy"),
        (CAN, {"obj_init_options": {"orientation": "askew"}}, "lr_switch"),
        (CAN, {"obj_init_options": {"cabinet_init_qpos": 0.1}}, "cabinet_init_qpos"),
        (CLOSE, {"obj_init_options": {"init_xy": [0, 0]}}, "init_xy"),
        (CAN, {"robot_init_options": {"qpos": np.zeros(11)}}, "init_rot_quat"),
        (CAN, {"robot_init_options": {"init_rot_quat": [0.7, 0.7, 0, 0]}}, "vertical"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(made: Make, task: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises(EnvError, match=word):
        made(task).reset(options=options)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"scene_name": "modern_office"}, "urdf_version"),
        ({"control_freq": 10}, "'control_freq': 3"),
        ({"urdf_version": "pink"}, "recolor_cabinet_visual_matching_1"),
        ({"slightly_darker_lighting": True, "variant": "background_1"}, "only variation"),
        ({"rgb_overlay_path": "nowhere.png"}, "nowhere.png"),
    ],
)
def test_what_cannot_be_made_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(EnvError, match=word):
        simpler_env.make(CAN, **options)


def test_simplers_variations_are_variants_here() -> None:
    assert {name for values in simpler_env.VARIATIONS.values() for name in values.values()} <= set(variants.names())
    env = simpler_env.make(
        CAN, slightly_darker_lighting=True, urdf_version=None, rgb_overlay_path=None, control_freq=3, obs_mode="rgbd"
    )
    _, info = env.reset()
    assert (info["variant"], info["setting"]) == ("lighting_darker", "variant_aggregation")
    env.close()


def test_the_environments_underneath_know_nothing_of_it() -> None:
    sources = [path for path in (ROOT / "envs").rglob("*.py") if path.name != "simpler.py"]
    assert not [path for path in sources if "envs.simpler" in path.read_text() or "maniskill2_obs" in path.read_text()]
