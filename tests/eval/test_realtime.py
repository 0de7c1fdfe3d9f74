"""Simulated time goes on while the policy thinks; no latency changes nothing, an injected one gives the same again."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import envs
from envs.errors import EnvError
from eval.latency import Injected, Measured, read_latency
from eval.planning import resolve
from eval.policies import HoldPolicy
from eval.realtime import LOOPS, SIMULATED, Realtime
from eval.rollout import Episode, Rollout, rollout
from tests.eval.records import record
from tests.eval.test_command import settings
from tests.eval.toy import SPEC, Scripted, ToyWorld, Wanderer
from vla.api import ActionChunk, InputError, Observation
from vla.chunking import OpenLoop

EPISODE = Episode("toy", 3)
TASK = "conveyor_widowx"


def realtime(loop: str, milliseconds: float) -> Realtime:
    return Realtime(loop, Injected.constant(milliseconds))


def test_what_others_log_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("policy_server.control_loop")
    realtime("wait", 300).rollout(ToyWorld(), Counting(0, 0), EPISODE, 1)
    assert not caplog.records, "that the robot holds is what is measured"
    assert log.isEnabledFor(logging.WARNING)


class Watched(ToyWorld):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[list[float]] = []

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.told.append([round(float(value), 6) for value in action])
        return super().step(action)


class Counting(Scripted):
    """Its n-th answer says n in every row."""

    def infer(self, observation: Observation) -> ActionChunk:
        super().infer(observation)
        number = len(self.steps)
        return ActionChunk(np.full((SPEC.horizon, 2), number, np.float32), SPEC.period)


def told(loop: str, milliseconds: float, execute: int = 2) -> list[float]:
    """What the toy robot was told in each of its STEPS periods: the number of the answer, 0 for a hold."""
    world = Watched()
    realtime(loop, milliseconds).rollout(world, Counting(0, 0), EPISODE, execute)
    return [row[0] for row in world.told]


@pytest.mark.parametrize("execute", [1, 2, 3])
def test_waiting_without_latency_is_the_plain_episode(execute: int) -> None:
    plain, live = Watched(), Watched()
    first = rollout(plain, Wanderer(), EPISODE, OpenLoop(execute))
    second = realtime("wait", 0).rollout(live, Wanderer(), EPISODE, execute)
    assert plain.told == live.told
    assert (first.success, first.strict) == (second.success, second.strict)


def test_the_robot_holds_while_it_waits() -> None:
    period_ms = 1000 * SPEC.period
    assert told("wait", 0) == [1, 1, 2, 2, 3, 3]
    assert told("wait", period_ms) == [0, 1, 1, 0, 2, 2]
    assert told("wait", 2 * period_ms) == [0, 0, 1, 1, 0, 0]


def test_the_other_loops_go_on_with_what_they_have() -> None:
    period_ms = 1000 * SPEC.period
    assert told("asynchronous", period_ms) == [0, 1, 1, 2, 3, 4]  # every answer is one period old when it is used
    assert told("real_time_chunking", period_ms)[:3] == [0, 1, 1]
    assert 0 not in told("real_time_chunking", period_ms)[1:]


@pytest.mark.parametrize("loop", LOOPS)
def test_an_injected_latency_gives_the_same_episode_again(loop: str) -> None:
    drawn = Realtime(loop, Injected.recorded([10.0, 150.0, 390.0]))
    seen = [drawn.rollout(ToyWorld(), Wanderer(), EPISODE, 2) for _ in range(2)]
    assert seen[0].latency_ms[SIMULATED] == seen[1].latency_ms[SIMULATED]
    assert seen[0].success == seen[1].success
    assert len(set(seen[0].latency_ms[SIMULATED])) > 1


def test_what_the_policy_raises_ends_the_episode() -> None:
    class Broken(Wanderer):
        def infer(self, observation: Observation) -> ActionChunk:
            raise RuntimeError("broken")

    seen = Rollout()
    with pytest.raises(RuntimeError, match="broken"):
        realtime("wait", 0).rollout(ToyWorld(), Broken(), EPISODE, 1, into=seen)
    assert seen.instruction == "go right"


def test_a_chunk_with_too_few_rows_is_refused() -> None:
    with pytest.raises(InputError, match="chunks have only 3 rows"):
        realtime("wait", 0).rollout(ToyWorld(), Counting(0, 0), EPISODE, SPEC.horizon + 1)


@pytest.mark.parametrize("task", envs.CONVEYOR)
def test_what_rides_on_the_belt_goes_on_while_the_robot_waits(task: str) -> None:
    env = envs.make(task, render=False)
    name = next(iter(env.start.objects))
    speed = next(iter(env.task.official_start(0).speeds.values()))
    live = Realtime("wait", Injected.constant(730.0))
    seen = live.rollout(env, HoldPolicy(env), Episode(task, 0), 1)
    travelled = env.world.position(name)[1] - env.task.official_start(0).objects[name].y
    assert env.simulated_time == pytest.approx(env.max_episode_steps * env.control_period, abs=1.1)
    assert travelled == pytest.approx(speed * env.simulated_time, abs=0.02)  # a lying can rolls a little
    assert seen.steps == env.max_episode_steps
    assert len(seen.latency_ms[SIMULATED]) == pytest.approx(seen.steps * env.control_period / (0.73 + 0.27), rel=0.35)


def test_waiting_takes_exactly_as_long_as_the_answer() -> None:
    env = envs.make(TASK, render=False)
    env.reset(options={"episode_id": 0})
    for milliseconds in (50.0, 120.0, 30.0):
        env.wait(milliseconds / 1000)
    assert env.simulated_time == pytest.approx(0.2)
    with pytest.raises(EnvError, match="at most a control period"):
        env.wait(0.3)


def test_a_waited_for_period_is_a_period_of_holding() -> None:
    held, waited = envs.make(TASK, render=False), envs.make(TASK, render=False)
    for env, rest in ((held, lambda: held.step(held.hold_action)), (waited, lambda: waited.wait(0.2))):
        env.reset(options={"episode_id": 5})
        rest()
    assert np.array_equal(held.world.data.qpos, waited.world.data.qpos)


def written(path: Path, content: object) -> str:
    path.write_text(json.dumps(content))
    return str(path)


PROFILE = {
    "rows": [
        {"recipe": "none", "stages_ms": {"total": {"p50": 100.0, "p90": 120.0, "p99": 200.0}}},
        {"recipe": "fast", "stages_ms": {"total": {"p50": 20.0, "p90": 21.0, "p99": 30.0}}},
    ]
}


def quantile(latency: object, level: float) -> float:
    assert isinstance(latency, Injected)
    return float(np.quantile([latency.of("s", number, 0.0) for number in range(2000)], level))


def test_latencies_come_from_a_number_a_profile_a_list_or_an_earlier_run(tmp_path: Path) -> None:
    assert isinstance(read_latency(None), Measured)
    assert Measured().of("s", 0, 7.0) == 7.0
    assert read_latency(250).of("s", 3, 1.0) == 250.0
    profile = written(tmp_path / "profile.json", PROFILE)
    assert quantile(read_latency(f"{profile}#fast"), 0.5) == pytest.approx(20.0, abs=0.1)
    assert quantile(read_latency(f"{profile}#none"), 0.9) == pytest.approx(120.0, abs=5)
    recorded = read_latency(written(tmp_path / "list.json", [5, 5, 5, 9]))
    assert (quantile(recorded, 0.0), quantile(recorded, 1.0)) == (5.0, pytest.approx(9.0, abs=0.1))
    (tmp_path / "episodes.jsonl").write_bytes(record(0).line())
    assert read_latency(str(tmp_path)) == Injected.recorded([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: "nowhere.json", "cannot be read"),
        (lambda folder: written(folder / "p.json", PROFILE), "is none of none, fast"),
        (lambda folder: written(folder / "p.json", PROFILE) + "#warp", "'warp' is none of none, fast"),
        (lambda folder: written(folder / "l.json", [3, -1]), "at least 0"),
        (lambda folder: written(folder / "l.json", []), "at least 0"),
        (lambda folder: written(folder / "l.json", ["a"]), "numbers only"),
        (lambda folder: written(folder / "l.json", {"a": 1}), "milliseconds"),
    ],
)
def test_files_without_latencies_are_refused(tmp_path: Path, make: Callable[[Path], str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_latency(make(tmp_path))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"latency_ms": 100}, "need realtime=true"),
        ({"loop": "asynchronous"}, "need realtime=true"),
        ({"realtime": True, "loop": "guess"}, "loop must be one of wait"),
        ({"realtime": True, "latency_ms": True}, "latency_ms must be"),
        ({"realtime": True, "workers": 8}, "measure with workers=1, or give latency_ms=<run folder>"),
    ],
)
def test_settings_that_make_no_sense_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        settings(**keys)


def test_runs_of_other_latencies_are_other_runs() -> None:
    chosen = [settings(), settings(realtime=True), settings(realtime=True, latency_ms=100)]
    chosen += [settings(realtime=True, latency_ms=100, loop="asynchronous")]
    identities = [str(sorted(each.identity().items())) for each in chosen]
    assert len(set(identities)) == len(chosen)


def test_another_distribution_in_the_same_file_is_another_run(tmp_path: Path) -> None:
    identities = []
    for values in ([10.0, 20.0], [10.0, 30.0], [10.0, 20.0]):
        path = written(tmp_path / "l.json", values)
        identities.append(settings(realtime=True, latency_ms=path, workers=2).identity())
    assert identities[0] == identities[2] != identities[1]


def test_all_is_simplers_suite_and_the_conveyor_a_group_of_its_own() -> None:
    assert tuple(resolve(["all"], envs.TASKS)) == envs.SIMPLER
    assert tuple(resolve(["conveyor"], envs.TASKS)) == envs.CONVEYOR
    assert not set(resolve(["widowx", "google_robot"], envs.TASKS)) & set(envs.CONVEYOR)
