"""A run's folder: nothing is lost, repeated or mixed."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from eval.results import Record, RunFolder
from eval.summary import remarks, results
from tests.eval.records import broken, record
from vla.api import InputError

DESIGN = (
    "task, setting, variant, episode_id, seed, instruction, success_last_step, success_any_step, success_strict, "
    "steps, outcome, error, sim_seconds, wall_seconds, latency_ms, policy, recipe, checkpoint, video"
)


def stored(path: Path, *records: Record) -> Path:
    with RunFolder(path) as folder:
        for item in records:
            folder.add(item)
    return path


def test_a_line_has_exactly_the_specified_fields() -> None:
    assert ", ".join(item.name for item in fields(Record)) == DESIGN
    assert ", ".join(json.loads(record().line())) == DESIGN


def test_a_line_reads_back_as_the_same_record() -> None:
    for item in (record(), broken(3, error='quotes " and\nnewlines \u2028')):
        assert Record.parse(item.line()) == item


def test_records_come_back_in_the_order_they_were_stored(tmp_path: Path) -> None:
    items = [record(2), record(0), broken(1)]
    with RunFolder(stored(tmp_path, *items)) as folder:
        assert list(folder.records.values()) == items


def test_a_kill_at_any_byte_loses_only_the_line_being_written(tmp_path: Path) -> None:
    path = stored(tmp_path, record(0), record(1))
    whole = (path / "episodes.jsonl").read_bytes()
    first, second = whole.splitlines(keepends=True)
    for length in range(0, len(whole) + 1, 7):
        (path / "episodes.jsonl").write_bytes(whole[:length])
        kept = (length >= len(first)) + (length >= len(whole))
        with RunFolder(path) as folder:
            assert len(folder.records) == kept
            folder.add(record(5))
        lines = (path / "episodes.jsonl").read_bytes().splitlines(keepends=True)
        assert lines == [*[first, second][:kept], record(5).line()]


def test_a_retried_episode_takes_the_place_of_its_error(tmp_path: Path) -> None:
    with RunFolder(stored(tmp_path, broken(0), record(1))) as folder:
        folder.add(record(0, success=False))
    lines = (tmp_path / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    assert lines == [record(0, success=False).line(), record(1).line()]


@pytest.mark.parametrize(
    "damage", [b"nonsense\n", b"[]\n", b'{"task": "toy"}\n', record(7).line(), b"\xff\n", broken(8).line() * 2]
)
def test_damage_before_the_end_is_refused_and_nothing_is_overwritten(tmp_path: Path, damage: bytes) -> None:
    path = stored(tmp_path, record(7)) / "episodes.jsonl"
    path.write_bytes(path.read_bytes() + damage + record(9).line())
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"line [23]"):
        RunFolder(tmp_path).__enter__()
    assert path.read_bytes() == before


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(InputError, match="another evaluation"):
        RunFolder(tmp_path).__enter__()
    with RunFolder(tmp_path):
        pass


def test_a_refused_writer_leaves_the_lock_to_the_first(tmp_path: Path) -> None:
    with RunFolder(tmp_path):
        for _ in range(2):
            with pytest.raises(InputError, match="another evaluation"):
                RunFolder(tmp_path).__enter__()


@pytest.mark.parametrize("out", ["/dev/null/run", "/proc/run", "file"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder(tmp_path / out).__enter__()


SIGNED = {"seed": 0, "execute": 2, "checkpoint": "c0ffee"}


@pytest.mark.parametrize("changed", [{"seed": 1}, {"execute": 1}, {"checkpoint": "decaf"}])
def test_another_configuration_is_refused_naming_both_values(tmp_path: Path, changed: dict[str, object]) -> None:
    with RunFolder(tmp_path) as folder:
        folder.sign(SIGNED)
    before = (tmp_path / "run.json").read_bytes()
    ((name, value),) = changed.items()
    with RunFolder(tmp_path) as folder, pytest.raises(InputError, match=f"{name}={SIGNED[name]}.*{name}={value}"):
        folder.sign({**SIGNED, **changed})
    assert (tmp_path / "run.json").read_bytes() == before


def test_the_same_configuration_may_continue(tmp_path: Path) -> None:
    for _ in range(2):
        with RunFolder(tmp_path) as folder:
            folder.claim({"seed": 0})
            folder.sign(SIGNED)


@pytest.mark.parametrize("identity", ["{", "[]", '{"format": 0}'])
def test_a_run_of_another_format_is_refused_before_its_episodes_are_read(tmp_path: Path, identity: str) -> None:
    (tmp_path / "run.json").write_text(identity)
    (tmp_path / "episodes.jsonl").write_text('{"fields": "of another version"}\n')
    with pytest.raises(InputError, match=r"run\.json (is damaged|must hold)|results format 0, this is 1"):
        RunFolder(tmp_path).__enter__()


@pytest.mark.parametrize("name", ["episodes.jsonl", "results.json"])
def test_results_of_an_unknown_run_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(record().line())
    with RunFolder(tmp_path) as folder, pytest.raises(InputError, match=rf"{name} of a run without run\.json"):
        folder.claim(SIGNED)
    assert (tmp_path / name).read_bytes() == record().line()


def test_a_refused_run_changes_nothing_not_even_a_line_that_a_kill_cut_off(tmp_path: Path) -> None:
    with RunFolder(stored(tmp_path, record(0))) as folder:
        (tmp_path / "run.json").write_text(json.dumps({"format": 1, **SIGNED}))
    with folder.episodes.open("ab") as file:
        file.write(record(1).line()[:50])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with RunFolder(tmp_path) as folder, pytest.raises(InputError, match="seed=1"):
        folder.claim({"seed": 1})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with RunFolder(tmp_path) as folder:
        folder.claim(SIGNED)
        folder.mend()
    assert folder.episodes.read_bytes() == record(0).line()


def test_attempts_that_were_run_again_are_kept_once_each_and_told(tmp_path: Path) -> None:
    attempts = [broken(0, error="first"), broken(0, outcome="timeout", error="second"), record(0)]
    with RunFolder(tmp_path) as folder:
        for attempt in attempts:
            folder.add(attempt)
        with (tmp_path / "retried.jsonl").open("ab") as file:
            file.write(attempts[1].line())  # what a kill between both files leaves
        assert folder.retried == attempts[:2]
        content = results(folder.records.values(), {}, retried=folder.retried)
    assert content["tasks"][0]["errors"] == 0
    assert content["tasks"][0]["retried"] == ["first", "second"]
    assert "toy: 2 attempt(s) went wrong and were run again, first: first" in remarks(content)
