"""Worker processes: as many as there are, outcomes are those of one process, and a lost one costs nothing."""

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from eval.evaluate import Entered, Evaluation, pending
from eval.results import Record, RunFolder
from eval.rollout import Episode
from eval.served import ServedPolicy
from eval.sources import Dialled, Fixed
from eval.spread import WorkerLost
from eval.worker import Player, answer_of, outcome
from eval.workers import Crew, SharedServer
from policy_server.client import RemotePolicy
from tests.eval.test_evaluate import EPISODES, ROOT, outcomes, run, toy_world
from tests.eval.toy import SPEC, ToyWorld, Wanderer
from vla.api import Camera, InputError

pytestmark = pytest.mark.timeout(300)  # several processes start in a test: slow where cores are scarce

FAST = ("policy=random", "video=false", "starts=random", "episodes=4")
INTERRUPTED = """
import os, signal
from eval.__main__ import main
from eval.results import RunFolder

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with Ctrl-C ignored
add = RunFolder.add
RunFolder.add = lambda folder, record: (add(folder, record), os.kill(os.getpid(), signal.SIGINT))
main()
"""


@contextmanager
def served_player() -> Iterator[Player]:
    with Dialled(partial(RemotePolicy, timeout=1.0)) as line, Evaluation(line, toy_world, execute=1) as evaluation:
        yield Player(evaluation, line)


@contextmanager
def mortal_player(world: type[ToyWorld] | None) -> Iterator[Player]:
    """Of one world; None: of what the episode's task says."""

    def make(episode: Episode, cameras: Iterable[Camera], film: bool) -> ToyWorld:
        return (world or {"toy": ToyWorld, "deadly": Dies}[episode.task])()

    with Evaluation(Fixed(Wanderer()), make, execute=1) as evaluation:
        yield Player(evaluation)


class DiesOnce(ToyWorld):
    """Kills the process that steps first; a file remembers."""

    def step(self, action: Any) -> Any:
        died = Path(os.environ["CADENCE_TEST_DEATH"])
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Dies(ToyWorld):
    """Kills every process that steps in it."""

    def step(self, action: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def slow_to_act() -> Iterator[Player]:
    policy = Wanderer(spec=type(SPEC)(**{**SPEC.__dict__, "period": 0.5}))
    with Evaluation(Fixed(policy), toy_world, execute=1) as evaluation:
        yield Player(evaluation)


@contextmanager
def refused_player() -> Iterator[Player]:
    raise InputError("no such model; allowed: tiny")
    yield


@contextmanager
def ending_player() -> Iterator[Player]:
    atexit.register(threading.Event().wait, 0.3)  # after it hung up, it takes a moment to end
    raise SystemExit(3)
    yield


@contextmanager
def broken_player() -> Iterator[Player]:
    raise ZeroDivisionError
    yield


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)  # so that the processes find tests.eval
    monkeypatch.setenv("CADENCE_TEST_DEATH", str(tmp_path / "died"))


def crewed(out: Path, make: Any, workers: int = 2, server: SharedServer | None = None) -> dict[int, Record]:
    with RunFolder(out) as folder, Crew(make, workers, out / "workers.log", server) as crew:
        crew.run(pending(EPISODES, folder.records), folder, lambda record: None)
        return {record.episode_id: record for record in folder.records.values()}


def serving(out: Path, *arguments: str) -> SharedServer:
    values: dict[str, Any] = {"log": out / "server.log", "timeout": 1.0, "module": "tests.eval.toy"}
    return SharedServer(lambda robot: ServedPolicy(arguments, **values), lambda task: "toy")


def test_three_workers_with_one_server_do_what_one_process_does(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        records = crewed(tmp_path / "three", served_player, 3, server)
    assert outcomes(records) == outcomes(run(tmp_path / "one", Fixed(Wanderer())))


def test_a_lost_worker_is_replaced_and_its_episode_run_again(tmp_path: Path) -> None:
    records = crewed(tmp_path / "crew", partial(mortal_player, DiesOnce))
    assert (tmp_path / "died").exists()
    assert outcomes(records) == outcomes(run(tmp_path / "one", Fixed(Wanderer())))


def test_an_episode_that_kills_its_workers_is_an_error(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder, Crew(partial(mortal_player, Dies), 1, tmp_path / "workers.log") as crew:
        crew.run(EPISODES[:1], folder, lambda record: None)
        (record,) = folder.records.values()
    assert record.outcome == "error"
    assert "killed by signal 9" in record.error
    assert "3 times" in record.error


def test_a_task_that_kills_its_workers_costs_the_others_nothing(tmp_path: Path) -> None:
    deadly = [replace(episode, task="deadly") for episode in EPISODES[:3]]
    out, episodes = tmp_path / "crew", [*deadly, *EPISODES]
    with RunFolder(out) as folder, Crew(partial(mortal_player, None), 2, out / "workers.log") as crew:
        crew.run(episodes, folder, lambda record: None)
        records = folder.records.values()
        assert pending(episodes, folder.records) == deadly
    assert all(re.search(r"killed by signal 9 .*, 3 times", each.error) for each in records if not each.scored)
    alone = run(tmp_path / "one", Fixed(Wanderer()))
    assert outcomes({each.episode_id: each for each in records if each.scored}) == outcomes(alone)


def test_the_command_goes_on_after_a_world_that_kills_its_workers(tmp_path: Path) -> None:
    """Also when the run begins with it; the exit status is that of any error, and the next run tries again."""
    file, out = Path(__file__).with_name("deadly_suite.py"), tmp_path / "run"
    words = [f"tasks=['{file}:lift','{file}:push']", f"out={out}", "policy=expert", "workers=2", "starts=grid"]
    done = command(*words, "episodes=1")
    assert done.returncode == 1, done.stderr
    assert re.search(r"lift episode 0: a worker process was killed by signal 11", done.stdout)
    assert re.search(r"lift episode 0: error: a worker process was killed by signal 11 .*, 3 times", _line(done.stdout))
    records = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    assert {each["task"].rpartition(":")[2]: each["outcome"] for each in records} == {
        "lift": "error",
        "push": "finished",
    }
    rates = {
        task["task"].rpartition(":")[2]: task["n"] for task in json.loads((out / "results.json").read_text())["tasks"]
    }
    assert rates["push"] == 1
    assert "1 of 2 episodes to run" in command(*words, "episodes=1").stdout


def _line(text: str) -> str:
    return " ".join(text.split())


def test_what_another_machine_s_crew_lost_is_said_in_its_words() -> None:
    def lose() -> None:
        raise WorkerLost("a worker process was killed by signal 9")

    with pytest.raises(WorkerLost, match=r"^a worker process was killed by signal 9$"):
        answer_of(outcome(lose))


def test_a_server_killed_in_an_episode_is_an_error_and_comes_back(tmp_path: Path) -> None:
    with serving(tmp_path, "fatal=/2/0") as server:
        records = crewed(tmp_path / "crew", served_player, 1, server)
    assert records[2].outcome == "error"
    assert "killed by signal 9 during the episode" in records[2].error
    local = run(tmp_path / "local", Fixed(Wanderer()))
    for number in (0, 1, 3):
        assert outcomes({0: records[number]}) == outcomes({0: local[number]})


def test_what_does_not_fit_is_said_and_nothing_is_stored(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every"):
        crewed(tmp_path, slow_to_act)
    assert not (tmp_path / "episodes.jsonl").exists()


def test_what_cannot_be_opened_is_said_as_with_one_worker(tmp_path: Path) -> None:
    with Crew(refused_player, 2, tmp_path / "workers.log") as crew, pytest.raises(InputError, match=r"^no such model"):
        crew.begin(EPISODES[0])


def test_a_worker_that_ends_by_itself_says_its_own_status(tmp_path: Path) -> None:
    with (
        Crew(ending_player, 1, tmp_path / "workers.log") as crew,
        pytest.raises(WorkerLost, match="ended with status 3"),
    ):
        crew.begin(EPISODES[0])


def test_a_worker_that_breaks_says_where(tmp_path: Path) -> None:
    with Crew(broken_player, 1, tmp_path / "workers.log") as crew:
        for _ in range(2):  # each question begins a new process
            with pytest.raises(WorkerLost, match="ZeroDivisionError"):
                crew.begin(EPISODES[0])


def test_the_first_episode_shows_what_policy_it_is(tmp_path: Path) -> None:
    with serving(tmp_path) as server, Crew(served_player, 1, tmp_path / "workers.log", server) as crew:
        entered = crew.begin(EPISODES[0])
        pids = [*crew.pids, server.pid]
    assert entered == Entered({"model": "toy", "recipe": SPEC.recipe, "checkpoint": "c0ffee"}, "none")
    assert not [pid for pid in pids if pid and psutil.pid_exists(pid)]


def command(*arguments: str, code: str = "from eval.__main__ import main; main()") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code, *FAST, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_ctrl_c_ends_everything_cleanly_and_the_run_can_go_on(tmp_path: Path) -> None:
    out = f"out={tmp_path / 'run'}"
    done = command("workers=2", out, code=INTERRUPTED)
    assert (done.returncode, done.stderr) == (1, "")
    left = [process for process in psutil.process_iter(["cmdline"]) if out in str(process.info["cmdline"])]
    assert not left
    assert command("workers=2", out).returncode == 0
    lines = (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert len(set(lines)) == 4
