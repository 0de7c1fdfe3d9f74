"""Many episodes: what breaks is recorded, what was interrupted is finished, remote equals local."""

import contextlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import psutil
import pytest

from eval.evaluate import Evaluation, pending
from eval.observers import Video
from eval.results import Record, RunFolder
from eval.rollout import Episode
from eval.served import ServedPolicy, ServerError
from eval.sources import Fixed, PerRobot, Source
from eval.summary import latency, results, samples_of
from policy_server.client import RemoteError, RemotePolicy
from policy_server.server import PolicyServer
from tests.eval.toy import SPEC, STEPS, Scripted, ToyWorld, Wanderer
from vla.api import Camera, InputError, Observation, Policy

ROOT = Path(__file__).parents[2]
EPISODES = [Episode("toy", number, starts="random") for number in range(4)]


def toy_world(episode: Episode, cameras: Iterable[Camera], film: bool) -> ToyWorld:
    return ToyWorld()


def run(out: Path, source: Source, episodes: Iterable[Episode] = EPISODES, **options: Any) -> dict[int, Record]:
    with RunFolder(out) as folder, Evaluation(source, toy_world, execute=1, **options) as evaluation:
        evaluation.run(pending(episodes, folder.records), folder, lambda record: None)
        return {record.episode_id: record for record in folder.records.values()}


def outcomes(records: dict[int, Record]) -> list[dict[str, Any]]:
    """Everything but how long it took."""
    plain = [asdict(records[number]) for number in sorted(records)]
    return [
        {name: value for name, value in line.items() if name not in ("wall_seconds", "latency_ms")} for line in plain
    ]


class Fails(Wanderer):
    """Raises in the second step of one episode."""

    def __init__(self, error: Exception, episode_id: int = 2) -> None:
        super().__init__()
        self._error, self._session = error, EPISODES[episode_id].session

    def infer(self, observation: Observation):
        if observation.session == self._session and observation.step == 1:
            raise self._error
        return super().infer(observation)


def test_every_episode_asked_for_is_stored_once(tmp_path: Path) -> None:
    records = run(tmp_path, Fixed(Wanderer()))
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert sorted(records) == [0, 1, 2, 3]
    assert len(lines) == len(EPISODES)
    assert {record.steps for record in records.values()} == {STEPS}
    assert {record.sim_seconds for record in records.values()} == {1.2}


@pytest.mark.parametrize(
    ("x", "y", "last", "strict"), [(1, 1, True, True), (1, -1, True, False), (-1, 1, False, False)]
)
def test_success_is_the_worlds_word_at_the_last_step(
    tmp_path: Path, x: float, y: float, last: bool, strict: bool
) -> None:
    record = run(tmp_path, Fixed(Scripted(x, y)))[0]
    assert (record.success_last_step, record.success_strict) == (last, strict)


def test_success_at_any_step_may_be_lost_at_the_last(tmp_path: Path) -> None:
    class Overshoots(Scripted):
        def infer(self, observation: Observation):
            return (Scripted(1, 0) if observation.step == 0 else Scripted(-1, 0)).infer(observation)

    record = run(tmp_path, Fixed(Overshoots(0, 0)))[0]
    assert (record.success_any_step, record.success_last_step) == (True, False)


@pytest.mark.parametrize("done", range(4))
def test_interrupted_and_continued_equals_never_interrupted(tmp_path: Path, done: int) -> None:
    run(tmp_path / "two", Fixed(Wanderer()), EPISODES[:done])
    continued = run(tmp_path / "two", Fixed(Wanderer()))
    assert outcomes(continued) == outcomes(run(tmp_path / "one", Fixed(Wanderer())))


def test_the_order_of_episodes_does_not_matter(tmp_path: Path) -> None:
    backwards = run(tmp_path / "two", Fixed(Wanderer()), EPISODES[::-1])
    assert outcomes(backwards) == outcomes(run(tmp_path / "one", Fixed(Wanderer())))


def test_remote_equals_local(tmp_path: Path) -> None:
    with PolicyServer(Wanderer()) as server, RemotePolicy(server.endpoint) as policy:
        remote = run(tmp_path / "remote", Fixed(policy))
    assert outcomes(remote) == outcomes(run(tmp_path / "local", Fixed(Wanderer())))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ZeroDivisionError("by zero"), "error"),
        (TimeoutError("too late"), "timeout"),
        (RemoteError("too late", "expired"), "timeout"),
        (RemoteError("broken", "internal"), "error"),
    ],
)
def test_an_exception_is_neither_success_nor_failure(tmp_path: Path, error: Exception, outcome: str) -> None:
    records = run(tmp_path, Fixed(Fails(error)))
    broken = records[2]
    assert (broken.outcome, broken.error, broken.steps) == (outcome, f"{type(error).__name__}: {error}", 1)
    assert (broken.success_last_step, broken.success_any_step, broken.success_strict) == (None, None, None)
    assert [records[number].outcome for number in (0, 1, 3)] == ["finished"] * 3
    (task,) = results(records.values(), {})["tasks"]
    assert (task["n"], task["errors"]) == (3, 1)


def test_a_world_that_broke_is_not_used_again(tmp_path: Path) -> None:
    worlds: list[ToyWorld] = []

    def make(episode: Episode, cameras: Iterable[Camera], film: bool) -> ToyWorld:
        worlds.append(ToyWorld())
        return worlds[-1]

    source = Fixed(Fails(ZeroDivisionError("by zero")))
    with RunFolder(tmp_path) as folder, Evaluation(source, make, execute=1) as evaluation:
        evaluation.run(EPISODES, folder, lambda record: None)
    assert [world.closed for world in worlds] == [True, True]


def test_running_again_retries_only_what_broke(tmp_path: Path) -> None:
    first = run(tmp_path, Fixed(Fails(ZeroDivisionError("by zero"))))
    again = run(tmp_path, Fixed(Wanderer()))
    assert outcomes(again) == outcomes(run(tmp_path / "clean", Fixed(Wanderer())))
    assert [again[number] for number in (0, 1, 3)] == [first[number] for number in (0, 1, 3)]
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == len(EPISODES)


def test_a_policy_that_does_not_fit_the_robot_runs_nothing(tmp_path: Path) -> None:
    policy = Wanderer(spec=type(SPEC)(**{**SPEC.__dict__, "period": 0.5}))
    with pytest.raises(InputError, match="every"):
        run(tmp_path, Fixed(policy))
    assert not (tmp_path / "episodes.jsonl").exists()


def test_a_policy_may_be_made_for_each_robot(tmp_path: Path) -> None:
    made: list[ToyWorld] = []

    def make(world: ToyWorld) -> Policy:
        made.append(world)
        return Wanderer()

    records = run(tmp_path, PerRobot(make))
    assert len(made) == len(EPISODES)
    assert {record.policy for record in records.values()} == {"toy"}


def test_latencies_of_a_run_are_those_of_its_stored_lines(tmp_path: Path) -> None:
    records = run(tmp_path, Fixed(Wanderer()))
    (task,) = results(records.values(), {})["tasks"]
    assert task["latency_ms"] == latency(samples_of(records.values()))
    assert task["latency_ms"]["stages"]["total"] == {"p50": 4.0, "p99": 7.0}
    assert len(samples_of(records.values())["round_trip"]) == len(EPISODES) * STEPS


def test_videos_show_every_step_and_say_how_it_ended(tmp_path: Path) -> None:
    source = Fixed(Fails(ZeroDivisionError("by zero")))
    records = run(tmp_path, source, videos=tmp_path / "videos")
    for record in records.values():
        word = {None: "error", True: "success", False: "failure"}[record.success_last_step]
        assert record.video == f"videos/toy_{record.episode_id}_{word}.mp4"
        with av.open(str(tmp_path / record.video)) as video:
            stream = video.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == (
                "h264",
                "yuv420p",
                5,
            )
            frames = [frame.to_ndarray(format="gray").mean() for frame in video.decode(stream)]
        assert len(frames) == (STEPS + 1 if record.scored else 2)
        assert frames == pytest.approx([40 * step for step in range(len(frames))], abs=12)


def test_a_video_that_cannot_be_written_is_that_episodes_error_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Video.finish

    def full_disk(video: Video, record: Record) -> str:
        if record.episode_id == 1:
            raise OSError(28, "No space left on device")
        return finish(video, record)

    monkeypatch.setattr(Video, "finish", full_disk)
    records = run(tmp_path, Fixed(Wanderer()), videos=tmp_path / "videos")
    assert [records[number].outcome for number in range(4)] == ["finished", "error", "finished", "finished"]
    assert "No space left" in records[1].error
    assert (records[1].success_last_step, records[1].video) == (None, "")


def test_a_retried_episode_has_one_video(tmp_path: Path) -> None:
    run(tmp_path, Fixed(Fails(ZeroDivisionError("by zero"))), videos=tmp_path / "videos")
    records = run(tmp_path, Fixed(Wanderer()), videos=tmp_path / "videos")
    files = {f"videos/{path.name}" for path in (tmp_path / "videos").iterdir()}
    assert files == {record.video for record in records.values()}


@contextlib.contextmanager
def served(tmp_path: Path, *arguments: str, **options: Any) -> Iterator[ServedPolicy]:
    values = {"timeout": 1.0, "patience": 60.0, "module": "tests.eval.toy", **options}
    with ServedPolicy(arguments, tmp_path / "server.log", **values) as policy:
        yield policy


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # so that the server process finds tests.eval.toy


@pytest.mark.usefixtures("at_root")
def test_a_server_killed_in_an_episode_is_that_episodes_error_alone(tmp_path: Path) -> None:
    with served(tmp_path, "fatal=/2/0") as policy:
        records = run(tmp_path / "run", Fixed(policy, policy.revive))
    assert records[2].outcome == "error"
    assert "killed by signal 9 during the episode" in records[2].error
    local = run(tmp_path / "local", Fixed(Wanderer()))
    for number in (0, 1, 3):
        assert outcomes({0: records[number]}) == outcomes({0: local[number]})


@pytest.mark.usefixtures("at_root")
def test_a_server_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    with served(tmp_path, "fatal=/0", restarts=1, timeout=0.5) as policy:
        records = run(tmp_path / "run", Fixed(policy, policy.revive))
    assert [records[number].outcome for number in range(4)] == ["error"] * 4
    assert "died too often" in records[3].error


@pytest.mark.usefixtures("at_root")
def test_a_server_that_cannot_come_back_fails_every_further_episode(tmp_path: Path) -> None:
    with served(tmp_path, "fatal=/1/0", f"crash={tmp_path / 'run' / 'episodes.jsonl'}", timeout=0.5) as policy:
        records = run(tmp_path / "run", Fixed(policy, policy.revive))
    assert [records[number].outcome for number in range(4)] == ["finished", "error", "error", "error"]
    assert "on the way up" in records[3].error


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("argument", "error", "says"),
    [
        ("refuse=1", InputError, r"^unknown model 'nonsense'; allowed: toy \(error: none\)$"),
        (f"crash={__file__}", ServerError, "(?s)status 1.*on the way up"),
    ],
)
def test_a_server_that_does_not_come_up_says_why(
    tmp_path: Path, argument: str, error: type[Exception], says: str
) -> None:
    with served(tmp_path, argument) as policy, pytest.raises(error, match=says):
        _ = policy.spec


@pytest.mark.usefixtures("at_root")
def test_the_server_ends_with_the_evaluation(tmp_path: Path) -> None:
    with served(tmp_path) as policy:
        assert policy.spec == SPEC
        process = policy._process
    assert process is not None
    assert not process.alive


@pytest.mark.usefixtures("at_root")
def test_a_killed_evaluation_leaves_no_server_behind(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from eval.served import ServedPolicy\n"
        "with ServedPolicy([], Path(sys.argv[1]), timeout=1.0, module='tests.eval.toy') as policy:\n"
        "    policy.spec; print(policy.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "server.log")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as evaluation:
        assert evaluation.stdout is not None
        server = psutil.Process(int(evaluation.stdout.readline()))
        evaluation.kill()
        server.wait(timeout=30)
