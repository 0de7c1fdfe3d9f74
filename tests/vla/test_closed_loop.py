"""Scoring checkpoints while training: the best is kept, whatever came before or was forgotten."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vla.api import InputError
from vla.training.boards import boards
from vla.training.closed_loop import ClosedLoop


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "run" / "checkpoint"
    directory.mkdir(parents=True)
    return directory


def scored(monkeypatch: pytest.MonkeyPatch, loop: ClosedLoop, checkpoint: Path, step: int, success: float) -> float:
    """Score with an evaluator that finds this success."""

    def evaluator(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(next(part for part in command if part.startswith("out=")).removeprefix("out="))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"mean_success": success}))
        return subprocess.CompletedProcess(command, 0, "", "")

    (checkpoint / "model.safetensors").write_text(f"weights of step {step}")
    monkeypatch.setattr(subprocess, "run", evaluator)
    return loop.score(checkpoint, step)


def best(loop: ClosedLoop) -> str:
    return (loop.out / "best" / "model.safetensors").read_text()


def test_the_best_checkpoint_is_kept(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    loop = ClosedLoop(checkpoint.parent, 10, {})
    for step, success, kept in ((10, 0.2, 10), (20, 0.6, 20), (30, 0.5, 20), (40, 0.6, 40)):
        assert scored(monkeypatch, loop, checkpoint, step, success) == success
        assert best(loop) == f"weights of step {kept}"


def test_scores_beyond_the_point_where_a_run_resumed_do_not_count(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    loop = ClosedLoop(checkpoint.parent, 10, {})
    scored(monkeypatch, loop, checkpoint, 30, 0.9)
    scored(monkeypatch, loop, checkpoint, 20, 0.5)
    assert best(loop) == "weights of step 20"


def test_due_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    loop = ClosedLoop(tmp_path, 10, {})
    assert [step for step in range(1, 26) if loop.is_due(step, 25)] == [10, 20, 25]
    assert not any(ClosedLoop(tmp_path, 0, {}).is_due(step, 25) for step in range(1, 26))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": -1}, "evaluate.every"),
        ({"every": 1.5}, "evaluate.every"),
        ({"every": 1, "out": "x", "checkpoint": "y"}, "evaluate: checkpoint, out cannot be chosen"),
        ("often", "evaluate must be a group of options"),
    ],
)
def test_bad_options_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        ClosedLoop.of(tmp_path, options)


def test_a_failing_evaluation_says_why(checkpoint: Path) -> None:
    loop = ClosedLoop(checkpoint.parent, 1, {"tasks": ["no_such_task"]})
    with pytest.raises(InputError, match=r"cadence-eval failed: .*no_such_task"):
        loop.score(checkpoint, 1)


def test_tensorboard_shows_every_step_once_after_an_interruption(tmp_path: Path) -> None:
    with boards(tmp_path, 0, True, None) as tell:
        for step in (1, 2, 3):
            tell({"step": step, "action_loss": float(step)})
    with boards(tmp_path, 2, True, None) as tell:
        tell({"step": 3, "action_loss": 30.0})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("action_loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]
