"""One test for every task: it follows gymnasium's rules, an expert solves it, and nobody solves it by doing nothing."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs import experts
from envs.errors import EnvError
from envs.manipulation import ManipulationEnv

ROLLOUTS = """
import hashlib, numpy as np, envs
for name in envs.TASKS:
    env = envs.make(name, render=False)
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(10):
        env.step(rng.uniform(-0.02, 0.02, 7).astype(np.float32))
    print(name, hashlib.sha256(env.world.data.qpos.tobytes() + env.world.data.qvel.tobytes()).hexdigest())
"""
GOOGLE = (
    *(f"pick_{which}coke_can" for which in ("", "horizontal_", "vertical_", "standing_")),
    "pick_object",
    "move_near",
    "move_near_v0",
    "move_near_v1",
    *(f"{verb}_{which}drawer" for verb in ("open", "close") for which in ("", "top_", "middle_", "bottom_")),
    *(f"place_in_closed_{which}drawer" for which in ("", "top_", "middle_", "bottom_")),
    "place_apple_in_closed_top_drawer",
)
WIDOWX = ("spoon_on_towel", "carrot_on_plate", "stack_cube", "put_eggplant_in_basket")


@pytest.fixture(scope="module")
def rolled_out() -> list[dict[str, str]]:
    """Task -> hash of the state after the same actions, in two other processes."""
    command = [sys.executable, "-c", ROLLOUTS]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    return [dict(line.split() for line in run.splitlines()) for run in runs]


@pytest.fixture(params=envs.TASKS, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def env(name: str) -> ManipulationEnv:
    return envs.make(name, render=False)


def run_expert(env: ManipulationEnv, seed: int | None = None, episode_id: int | None = None) -> dict[str, object]:
    info = env.reset(seed=seed, options={} if episode_id is None else {"episode_id": episode_id})[1]
    expert = experts.make(env)
    expert.reset()
    truncated = False
    while not truncated:
        truncated, info = env.step(expert.action())[3:]
    return info


def test_gymnasium_finds_it_and_accepts_it(name: str) -> None:
    env = gymnasium.make(f"simpler-mujoco/{name}", image_size=(32, 32))
    env.unwrapped.action_space.seed(0)  # the checker's actions are as large as they may be: some leave any workspace
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*normalized space.*")  # actions are metres and radians
        check_env(env.unwrapped, skip_render_check=True)
    image = env.unwrapped.render()
    assert isinstance(image, np.ndarray)
    assert image.shape == (32, 32, 3)
    assert image.std() > 10
    env.close()


def test_expert_solves_an_official_and_a_fresh_start(env: ManipulationEnv) -> None:
    assert run_expert(env, episode_id=env.grid_size // 2)["success_strict"]
    assert run_expert(env, seed=1)["success_strict"]


def test_no_official_start_is_solved_or_solves_itself(env: ManipulationEnv) -> None:
    for episode_id in range(0, env.grid_size, max(1, env.grid_size // 9)):
        info = env.reset(options={"episode_id": episode_id})[1]
        for _ in range(5):
            assert not info["success"]
            assert not info["success_any"]
            info = env.step(env.hold_action)[4]


def test_doing_nothing_fails(env: ManipulationEnv) -> None:
    info, truncated = env.reset(seed=0)[1], False
    while not truncated:
        truncated, info = env.step(env.hold_action)[3:]
    assert info["elapsed_steps"] == env.max_episode_steps
    assert not info["success_any"]


@pytest.mark.parametrize("scene", ["official", "mixed"])
def test_every_goal_of_a_scene_can_be_asked_for(name: str, scene: str) -> None:
    env = envs.make(name, scene=scene, render=False)
    instructions = env.reset(seed=2)[1]["instructions"]
    assert len(set(env.start.goals)) == len(instructions) > (scene == "mixed")
    own = env.world.data.qpos.copy()
    for number, instruction in enumerate(instructions):
        info = env.reset(seed=2, options={"goal": number})[1]
        assert info["instruction"] == instruction
        assert not info["success"]
        assert np.array_equal(env.world.data.qpos, own)
    with pytest.raises(EnvError, match="is not one of this scene's"):
        env.reset(seed=2, options={"goal": len(instructions)})


def test_same_seed_gives_the_same_states_in_another_process(name: str, rolled_out: list[dict[str, str]]) -> None:
    assert rolled_out[0][name] == rolled_out[1][name]


def test_the_suite_is_simplers() -> None:
    assert set(envs.SIMPLER) == {f"google_robot_{name}" for name in GOOGLE} | {f"widowx_{name}" for name in WIDOWX}
    assert set(envs.TASKS) == {*envs.SIMPLER, "conveyor_google_robot", "conveyor_widowx"}


def test_same_state_gives_the_same_image() -> None:
    env = envs.make(envs.TASKS[0], image_size=(64, 64))
    first = env.reset(seed=1)[0]["images"][env.camera_name]
    env.step(env.hold_action)
    assert np.array_equal(first, env.reset(seed=1)[0]["images"][env.camera_name])
    env.close()


def test_fresh_starts_differ_from_each_other(env: ManipulationEnv) -> None:
    starts: set[str] = set()
    for seed in range(10):
        env.reset(seed=seed)
        starts.add(repr(env.start))
    assert len(starts) == 10


@pytest.mark.parametrize(
    ("action", "word"),
    [(np.zeros(6, np.float32), "shape"), (np.full(7, np.nan, np.float32), "finite")],
)
def test_bad_actions_are_refused(env: ManipulationEnv, action: np.ndarray, word: str) -> None:
    env.reset(seed=0)
    with pytest.raises(EnvError, match=word):
        env.step(action)


def test_bad_starts_are_refused(env: ManipulationEnv) -> None:
    with pytest.raises(EnvError, match=f"{env.grid_size} official starts"):
        env.reset(options={"episode_id": env.grid_size})
    with pytest.raises(EnvError, match="unknown reset option"):
        env.reset(options={"episode": 0})


def test_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(EnvError, match="widowx_spoon_on_towel"):
        envs.make("widowx_spoon_on_plate")
