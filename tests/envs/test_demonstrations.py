"""Demonstrations: what is written is what happened, whatever the workers, whatever the interruptions."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.collection import Request, collect, make_world
from envs.demonstrations import Noise, demonstrate, start_seed
from envs.errors import EnvError
from envs.lerobot_dataset import ACTION, KEYPOINTS, STATE
from envs.shards import writing
from vla.training.dataset import Demonstrations

TASK = "widowx_spoon_on_towel"
REQUEST = Request((TASK,), episodes=3, shard=1)
ROOT = Path(__file__).parents[2]


class FakeWorld:
    """One number that the actions' dx moves; solved from 0.1 on."""

    max_episode_steps = 20

    def __init__(self) -> None:
        self.x = 0.0
        self.executed: list[NDArray[np.float32]] = []

    @property
    def unwrapped(self) -> "FakeWorld":
        return self

    def reset(self, seed: int, options: dict[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
        self.x, self.executed = 0.0, []
        return self._observation()

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.executed.append(action)
        self.x += float(action[0])
        observation, info = self._observation()
        return observation, 0.0, False, False, info

    def keypoints(self) -> NDArray[np.float32]:
        return np.array([self.x], np.float32)

    def _observation(self) -> tuple[dict[str, Any], dict[str, Any]]:
        info = {"instruction": "go", "variant": "base", "success_strict": self.x >= 0.1}
        images = {"eye": np.full((2, 2, 3), len(self.executed), np.uint8)}
        return {"images": images, "state": np.array([self.x], np.float32)}, info


class FakeExpert:
    """Moves by a fixed step until the world is solved."""

    def __init__(self, world: FakeWorld, step: float = 0.03) -> None:
        self.world, self.move, self.done = world, step, False

    def reset(self) -> None:
        self.done = False

    def action(self) -> NDArray[np.float32]:
        self.done = self.world.x >= 0.1
        return np.array([0.0 if self.done else self.move, 0, 0, 0, 0, 0, 1], np.float32)


def run(world: Any, expert: Any, attempt: int, noise: Noise | None = None) -> Any:
    return demonstrate(world, expert, noise or Noise(), "fake", 0, attempt, hold_steps=3)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("collected") / "one_worker"
    collect(REQUEST, out, workers=1)
    return out


def test_labels_are_clean_and_executed_actions_are_not() -> None:
    world = FakeWorld()
    found = run(world, FakeExpert(world), attempt=1)
    labels = found.vectors[ACTION]
    moving = labels[:, 0] > 0
    assert np.array_equal(labels[moving, 0], np.full(moving.sum(), 0.03, np.float32))
    executed = np.stack(world.executed)
    assert (executed[moving, :6] != labels[moving, :6]).any(axis=1).all()
    assert np.array_equal(executed[:, 6], labels[:, 6])
    assert np.array_equal(found.vectors[STATE][1:, 0], np.cumsum(executed[:-1, 0], dtype=np.float64).astype(np.float32))


def test_one_episode_in_five_is_clean() -> None:
    world = FakeWorld()
    clean = []
    for attempt in range(10):
        found = run(world, FakeExpert(world), attempt)
        clean.append(np.array_equal(np.stack(world.executed), found.vectors[ACTION]))
    assert clean == [attempt % 5 == 0 for attempt in range(10)]


def test_an_episode_ends_at_rest_and_a_failure_is_no_demonstration() -> None:
    world = FakeWorld()
    labels = run(world, FakeExpert(world), attempt=0).vectors[ACTION]
    assert np.count_nonzero(labels[:, 0]) == 4  # 0.03 m a step until 0.1 m
    assert len(labels) == 4 + 3
    assert run(world, FakeExpert(world, step=0.001), attempt=0) is None
    assert len(world.executed) == world.max_episode_steps


def test_seeds_are_never_small_and_runs_share_none() -> None:
    seeds = [start_seed(seed, attempt) for seed in range(3) for attempt in (0, 1, 999_999)]
    assert min(seeds) == 100_000
    assert len(set(seeds)) == len(seeds)


def test_read_back_equals_what_happened(collected: Path) -> None:
    env, expert = make_world(REQUEST, TASK, "base")
    happened = [demonstrate(env, expert, REQUEST.noise, TASK, REQUEST.seed, attempt, 3) for attempt in range(3)]
    env.close()
    read = Demonstrations.open(collected, ["3rd_view_camera"], horizon=4)
    expected = [each for each in happened if each is not None]
    assert len(expected) == len(read.episode_ends) == 3
    for key, values in ((STATE, read.states), (ACTION, read.actions), (KEYPOINTS, read.keypoints)):
        assert np.array_equal(values, np.concatenate([each.vectors[key] for each in expected]))
    assert np.array_equal(read.images, np.concatenate([each.images["3rd_view_camera"] for each in expected]))
    instructions = [each for one in expected for each in one.instructions]
    assert [read.instructions[index] for index in read.task_index] == instructions
    assert [quantity.name for quantity in read.action_quantities] == list(env.unwrapped.action_names)
    assert read.period == env.unwrapped.control_period


def test_two_workers_write_the_same_bytes(collected: Path, tmp_path: Path) -> None:
    collect(REQUEST, tmp_path / "two", workers=2)
    before = {name: data for name, data in contents(collected).items() if not name.startswith(".cache")}
    assert contents(tmp_path / "two") == before


def test_killed_and_resumed_equals_never_interrupted(collected: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    die = f"""
import os, signal
from pathlib import Path
from envs.collection import Request, collect
if __name__ == "__main__":
    request = Request(("{TASK}",), episodes=3, shard=1)
    collect(request, Path({str(out)!r}), 1, lambda shard, fresh: os.kill(os.getpid(), signal.SIGKILL))
"""
    script = tmp_path / "die.py"
    script.write_text(die)
    killed = subprocess.run([sys.executable, str(script)], check=False, cwd=ROOT, env=environment())
    assert killed.returncode == -9
    assert not (out / "meta").exists()
    fresh: list[bool] = []
    collect(REQUEST, out, 1, lambda shard, new: fresh.append(new))
    assert fresh[0] is False
    before = {name: data for name, data in contents(collected).items() if not name.startswith(".cache")}
    assert contents(out) == before


def test_a_complete_dataset_is_left_alone(collected: Path) -> None:
    before = contents(collected)
    calls: list[bool] = []
    collect(REQUEST, collected, 1, lambda shard, new: calls.append(new))
    assert calls == []
    assert contents(collected) == before
    with pytest.raises(EnvError, match="already holds a complete dataset"):
        collect(replace(REQUEST, seed=1), collected)


def test_an_interrupted_run_does_not_continue_with_another_request(tmp_path: Path) -> None:
    def stop(shard: object, fresh: bool) -> None:
        raise KeyboardInterrupt

    request = replace(REQUEST, episodes=1)
    with pytest.raises(KeyboardInterrupt):
        collect(request, tmp_path, 1, stop)
    with pytest.raises(EnvError, match="was begun with"):
        collect(replace(request, seed=7), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "episodes must be a whole number of at least 1, got 0"),
        ({"episodes": "many"}, "episodes must be a whole number"),
        ({"shard": 0}, "shard must be a whole number"),
        ({"tasks": ()}, "at least one task"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
    ],
)
def test_a_wrong_request_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvError, match=message):
        replace(REQUEST, **change)


def test_a_wrong_noise_is_refused() -> None:
    with pytest.raises(EnvError, match="bias_probability"):
        Noise(bias_probability=1.5)


def test_an_unusable_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EnvError, match="neither empty nor an interrupted collection"):
        collect(REQUEST, tmp_path)
    with pytest.raises(EnvError, match="cannot write the dataset"):
        collect(REQUEST, tmp_path / "file" / "out")
    with pytest.raises(EnvError, match="No space left"), writing(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("tasks", "messages"),
    [
        ("[juggle]", ["unknown task 'juggle'", TASK]),
        ("conveyor", ["one robot", "conveyor_widowx", "conveyor_google_robot", "collect them separately"]),
    ],
)
def test_the_command_refuses_tasks_before_it_begins(tmp_path: Path, tasks: str, messages: list[str]) -> None:
    command = [sys.executable, "-m", "envs", f"tasks={tasks}", f"out={tmp_path / 'out'}"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
    assert refused.returncode == 2
    for message in messages:
        assert message in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "out").exists()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}
