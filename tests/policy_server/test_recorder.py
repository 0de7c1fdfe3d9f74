"""What is served becomes a dataset, and the dataset can be trained on and served back."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policy_server import recorder as recording
from policy_server.client import RemotePolicy
from policy_server.codecs import Codec
from policy_server.recorder import Recorder
from policy_server.replay import ReplayPolicy
from policy_server.server import PolicyServer
from policy_server.watching import Answered, Behind
from tests.policies import SPEC, Digest, observation
from vla.api import ActionChunk, InputError, Observation
from vla.training.dataset import Demonstrations

CAMERAS = ["front", "wrist"]
Told = tuple[Observation, ActionChunk]


def told(step: int, session: str = "s", seed: int | None = None) -> Told:
    """An observation and its answer, both depending on the step."""
    seen = observation(seed=step if seed is None else seed, session=session, step=step)
    random = np.random.default_rng([step, seed or 0])
    actions = random.normal(size=(SPEC.horizon, len(SPEC.actions))).astype(np.float32)
    return seen, ActionChunk(actions, SPEC.period)


def record(recorder: Recorder, events: list[Told | str], client: bytes = b"arm") -> None:
    """Tell a recorder; text is the session that is reset."""
    for event in events:
        if isinstance(event, str):
            recorder.saw(Answered(client, event))
        else:
            recorder.saw(Answered(client, event[0].session, *event))


def recorded(folder: Path, *events: Told | str) -> Path:
    recorder = Recorder(folder, SPEC)
    record(recorder, list(events))
    recorder.close()
    assert recorder.report()["failed"] == ""
    return folder


def lengths(folder: Path) -> list[int]:
    """Frames of each episode, as training sees them; the dataset must be whole."""
    ends = Demonstrations.open(folder, CAMERAS, 1, folder.parent / "cache").episode_ends
    return np.diff(ends, prepend=0).tolist()


def test_training_reads_exactly_what_was_answered(tmp_path: Path) -> None:
    events = [told(step) for step in range(4)]
    demonstrations = Demonstrations.open(recorded(tmp_path / "d", *events), CAMERAS, 1)
    for row, (seen, chunk) in enumerate(events):
        for camera in CAMERAS:
            np.testing.assert_array_equal(demonstrations.views[camera][row], seen.images[camera])
        assert seen.state is not None
        np.testing.assert_array_equal(demonstrations.states[row], seen.state)
        np.testing.assert_array_equal(demonstrations.actions[row], chunk.actions[0])
    assert demonstrations.action_quantities == SPEC.actions
    assert demonstrations.state_quantities == SPEC.state
    assert demonstrations.keypoints.shape == (4, 0)
    assert demonstrations.period == SPEC.period


def test_an_episode_ends_with_a_reset_a_step_back_another_client_and_the_server(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "d", SPEC)
    record(recorder, [told(0), told(1), "s", told(2), told(3), told(4), told(0)])
    record(recorder, [told(0)], client=b"another arm of the same name")
    record(recorder, ["nobody"])
    recorder.close()
    assert lengths(tmp_path / "d") == [2, 3, 1, 1]


def test_robots_at_the_same_time_have_episodes_of_their_own(tmp_path: Path) -> None:
    mixed = [told(step, session, seed) for step in range(3) for seed, session in enumerate("ab")]
    demonstrations = Demonstrations.open(recorded(tmp_path / "d", *mixed), CAMERAS, 1)
    expected = [chunk.actions[0] for session in "ab" for seen, chunk in mixed if seen.session == session]
    np.testing.assert_array_equal(demonstrations.actions, np.stack(expected))


def test_a_recording_is_continued(tmp_path: Path) -> None:
    recorded(tmp_path / "d", told(0), told(1))
    recorded(tmp_path / "d", told(0), told(1), told(2))
    assert lengths(tmp_path / "d") == [2, 3]
    rows = [pq.read_table(path) for path in sorted((tmp_path / "d" / "meta" / "episodes").rglob("*.parquet"))]
    assert [row["session"].to_pylist() for row in rows] == [["s"], ["s"]]


def test_a_kill_loses_at_most_the_running_episode(tmp_path: Path) -> None:
    """Whatever was on disk at any moment is a whole dataset, and can be continued."""
    folder, kept = tmp_path / "d", []
    recorder = Recorder(folder, SPEC)
    for number, event in enumerate([told(0), told(1), "s", told(0), "s", told(0), told(1)]):
        record(recorder, [event])
        settle(recorder, number + 1)
        kept.append(shutil.copytree(folder, tmp_path / f"killed after {number}"))
    assert [lengths(copy) for copy in kept[2:]] == [[2], [2], [2, 1], [2, 1], [2, 1]]
    for copy in kept:
        recorded(copy, told(0))
    assert [lengths(copy) for copy in kept] == [[1], [1], [2, 1], [2, 1], [2, 1, 1], [2, 1, 1], [2, 1, 1]]
    recorder.close()


def settle(recorder: Recorder, done: int) -> None:
    """Wait until the recorder has worked off so many events."""
    while recorder.report()["done"] < done:
        assert not recorder.report()["failed"]


def test_a_kill_between_two_files_is_repaired(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "d", told(0), "s", told(0), told(1))
    info = json.loads((folder / "meta" / "info.json").read_text())
    info |= {"total_episodes": 1, "total_frames": 1}  # everything of the second episode is there but its counting
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    recorded(folder, told(0), told(1), told(2))
    assert lengths(folder) == [1, 3]


def test_idle_and_endless_episodes_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "LONGEST", 3)
    now = [0.0]
    recorder = Recorder(tmp_path / "d", SPEC, clock=lambda: now[0])
    record(recorder, [told(step) for step in range(5)])
    settle(recorder, 5)
    now[0] = recording.IDLE
    record(recorder, [told(0, "other")])
    settle(recorder, 6)
    assert recorder.report()["growing"] == 1
    recorder.close()
    assert lengths(tmp_path / "d") == [3, 2, 1]


def test_few_episodes_grow_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MOST_OPEN", 2)
    events = [told(step, session) for step in range(2) for session in "abc"]
    assert lengths(recorded(tmp_path / "d", *events)) == [1] * 6


def test_text_that_no_file_can_hold_is_recorded_all_the_same(tmp_path: Path) -> None:
    seen = observation(instruction="half a \ud83e", session="\udd16")
    folder = recorded(tmp_path / "d", (seen, told(0)[1]))
    assert Demonstrations.open(folder, CAMERAS, 1).instructions == ["half a ?"]


def test_images_of_another_size_are_counted_not_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "d", SPEC)
    small = {camera: np.zeros((2, 2, 3), np.uint8) for camera in CAMERAS}
    record(recorder, [told(0), (Observation(small, "", told(0)[0].state, "s", 1), told(1)[1])])
    recorder.close()
    assert recorder.report()["misfits"] == 1
    assert lengths(tmp_path / "d") == [1]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    recorder = Recorder(tmp_path / "busy", SPEC)
    yield tmp_path / "busy"
    recorder.close()


def test_a_folder_in_use_is_refused(busy: Path) -> None:
    with pytest.raises(InputError, match="another server records"):
        Recorder(busy, SPEC)


def spoil(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("{}")


@pytest.mark.parametrize(
    ("spoiled", "complaint"),
    [
        (spoil("notes.txt"), "neither empty nor a dataset"),
        (lambda folder: spoil("meta/info.json")(recorded(folder, told(0))), "damaged dataset"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, spoiled: Callable[[Path], object], complaint: str) -> None:
    (tmp_path / "d").mkdir()
    spoiled(tmp_path / "d")
    with pytest.raises(InputError, match=complaint):
        Recorder(tmp_path / "d", SPEC)


def test_another_policy_s_recording_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    recorded(tmp_path / "d", told(0))
    with pytest.raises(InputError, match="another kind of policy"):
        Recorder(tmp_path / "d", replace(SPEC, horizon=2))


def test_a_policy_without_whole_frames_a_second_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(InputError, match="whole frames a second"):
        Recorder(tmp_path / "d", replace(SPEC, period=0.3))


def test_what_is_served_is_recorded_and_served_back(tmp_path: Path) -> None:
    """Bit for bit at the steps that were asked; in between, what a robot did that followed the newest answer."""
    asked = (0, 2, 4)
    recorder = Recorder(tmp_path / "d", SPEC)
    png = Codec("png")
    with PolicyServer(Digest(), watchers=[recorder]) as server, RemotePolicy(server.endpoint, 20.0, codec=png) as robot:
        answers = {step: robot.infer(observation(seed=step, session="s", step=step)).actions for step in asked}
        robot.reset("s")
        assert [each["name"] for each in robot.metrics()["watchers"]] == ["recorder"]
    recorder.close()
    replay = ReplayPolicy(tmp_path / "d")
    with PolicyServer(replay) as server, RemotePolicy(server.endpoint, timeout=20.0) as robot:
        assert robot.spec.model == "replay of digest"
        for step in asked:
            np.testing.assert_array_equal(robot.infer(observation(step=step)).actions, answers[step])
        between = robot.infer(observation(step=1)).actions
        np.testing.assert_array_equal(between[:4], [answers[0][1], *answers[2][:2], answers[4][0]])
        with pytest.raises(InputError, match="actions for steps 0 to 8, got step 9"):
            robot.infer(observation(step=9))
    seen = Demonstrations.open(tmp_path / "d", CAMERAS, 1)
    np.testing.assert_array_equal(seen.views["front"][1], observation(seed=2).images["front"])  # unpacked


def test_a_recording_with_steps_in_lists_of_one_is_continued_and_served_back(tmp_path: Path) -> None:
    """As they were once recorded."""
    folder = recorded(tmp_path / "d", told(0), told(2))
    (path,) = (folder / "data").rglob("*.parquet")
    table = pq.read_table(path)
    assert table["step"].to_pylist() == [0, 2]
    lists = pa.FixedSizeListArray.from_arrays(table["step"].combine_chunks(), 1)
    pq.write_table(table.set_column(table.column_names.index("step"), "step", lists), path)
    recorded(folder, told(1), told(5))
    assert lengths(folder) == [2, 2]
    for episode, steps in enumerate([(0, 2), (1, 5)]):
        replay = ReplayPolicy(folder, episode)
        for step in steps:
            np.testing.assert_array_equal(replay.infer(observation(step=step)).actions, told(step)[1].actions)


def test_an_episode_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has episodes 0 to 0, got episode=1"):
        ReplayPolicy(recorded(tmp_path / "d", told(0)), episode=1)


def test_a_server_that_replays_loads_neither_pandas_nor_torch(tmp_path: Path) -> None:
    """Both cost more memory than all the rest."""
    folder = recorded(tmp_path / "d", told(0), told(1))
    code = "import sys; from policy_server.replay import ReplayPolicy; ReplayPolicy(sys.argv[1]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert not {"pandas", "torch"} & set(loaded.stdout.split())


def test_demonstrations_from_elsewhere_can_be_served(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "d", told(0), told(1))
    (folder / "meta" / "policy.json").unlink()
    info = json.loads((folder / "meta" / "info.json").read_text())
    del info["features"]["action_chunk"], info["features"]["step"]
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    replay = ReplayPolicy(folder)
    assert (replay.spec.horizon, replay.spec.period, len(replay.spec.cameras)) == (1, SPEC.period, 2)
    np.testing.assert_array_equal(replay.infer(observation(step=1)).actions, told(1)[1].actions[:1])


def test_a_watcher_that_is_slow_drops_and_one_that_fails_ends_while_the_server_goes_on() -> None:
    gate, begun = threading.Event(), threading.Event()

    def work(event: Answered | None) -> None:
        begun.set()
        gate.wait()
        if event is not None and event.observation is not None and event.observation.step == 1:
            raise OSError("No space left on device")

    one = Answered(b"arm", "s", *told(0))
    behind = Behind("recorder", work, room=2 * one.bytes)
    behind.saw(one)
    assert begun.wait(20.0)
    for step in (1, 2, 3):
        behind.saw(Answered(b"arm", "s", *told(step)))
    assert (behind.report()["dropped"], behind.report()["waiting"]) == (1, 2)
    gate.set()
    behind.close()
    assert "No space left" in behind.report()["failed"]
    behind.saw(one)
    assert behind.report()["waiting"] == 0
