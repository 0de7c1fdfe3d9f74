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

ROLLOUT = """
import hashlib, sys, numpy as np, envs
env = envs.make(sys.argv[1], render=False)
env.reset(seed=3)
rng = np.random.default_rng(0)
for _ in range(10):
    env.step(rng.uniform(-0.02, 0.02, 7).astype(np.float32))
print(hashlib.sha256(env.world.data.qpos.tobytes() + env.world.data.qvel.tobytes()).hexdigest())
"""


@pytest.fixture(params=envs.TASKS, scope="module")
def env(request: pytest.FixtureRequest) -> ManipulationEnv:
    return envs.make(request.param, render=False)


def run_expert(env: ManipulationEnv, seed: int | None = None, episode_id: int | None = None) -> dict[str, object]:
    info = env.reset(seed=seed, options={} if episode_id is None else {"episode_id": episode_id})[1]
    expert = experts.make(env)
    truncated = False
    while not truncated:
        truncated, info = env.step(expert.action())[3:]
    return info


@pytest.mark.parametrize("name", envs.TASKS)
def test_gymnasium_finds_it_and_accepts_it(name: str) -> None:
    env = gymnasium.make(f"simpler-mujoco/{name}", image_size=(32, 32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*normalized space.*")  # actions are metres and radians
        check_env(env.unwrapped, skip_render_check=True)
    image = env.unwrapped.render()
    assert isinstance(image, np.ndarray)
    assert image.shape == (32, 32, 3)
    assert image.std() > 10
    env.close()


@pytest.mark.parametrize("episode_id", [0, -1])
def test_expert_solves_official_starts(env: ManipulationEnv, episode_id: int) -> None:
    assert run_expert(env, episode_id=episode_id % env.grid_size)["success_strict"]


@pytest.mark.parametrize("seed", [0, 1])
def test_expert_solves_fresh_starts(env: ManipulationEnv, seed: int) -> None:
    assert run_expert(env, seed=seed)["success_strict"]


def test_no_official_start_is_solved_or_solves_itself(env: ManipulationEnv) -> None:
    for episode_id in range(env.grid_size):
        info = env.reset(options={"episode_id": episode_id})[1]
        for _ in range(5):
            assert not info["success"]
            info = env.step(env.hold_action)[4]


def test_same_seed_gives_the_same_states_in_another_process(env: ManipulationEnv) -> None:
    first, second = (
        subprocess.run(
            [sys.executable, "-c", ROLLOUT, env.task.name], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second


def test_same_state_gives_the_same_image() -> None:
    env = envs.make(envs.TASKS[0], image_size=(64, 64))
    first = env.reset(seed=1)[0]["images"][env.camera_name]
    env.step(env.hold_action)
    assert np.array_equal(first, env.reset(seed=1)[0]["images"][env.camera_name])
    env.close()


def test_fresh_starts_differ_from_each_other(env: ManipulationEnv) -> None:
    starts: set[bytes] = set()
    for seed in range(10):
        env.reset(seed=seed)
        starts.add(env.world.data.qpos.tobytes())
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
