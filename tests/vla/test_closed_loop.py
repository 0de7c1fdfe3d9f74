"""Scoring checkpoints while training: the best is kept, whatever came before or was forgotten."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vla.api import InputError
from vla.checkpoints import native
from vla.training.boards import boards
from vla.training.closed_loop import ClosedLoop

# Stands where the interpreter is: signs and scores a folder as cadence-eval does, and ends with a status.
EVALUATOR = """#!{python} -S
import json, pathlib, sys
values = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
folder = pathlib.Path(values["out"].strip("'"))
folder.mkdir(parents=True, exist_ok=True)
kept = [path.name for path in folder.iterdir()]
(folder / "saw.json").write_text(json.dumps([sys.argv[1:], kept]))
if {status} != 2:
    (folder / "run.json").write_text(json.dumps(dict(checkpoint={weights!r})))
    (folder / "results.json").write_text(json.dumps(dict(mean_success={success})))
print("error: refused", file=sys.stderr)
sys.exit({status})
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "run" / "checkpoint"
    directory.mkdir(parents=True)
    for name, content in (("config.json", "{}"), ("processing.json", "{}"), ("tokenizer.json", "{}")):
        (directory / name).write_text(content)
    (directory / "model.safetensors").write_text("weights")
    return directory


Score = Callable[..., float]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Path) -> Score:
    """Scores the weights of a step with an evaluator that finds a success and ends with a status."""
    python, program = sys.executable, tmp_path / "evaluator"

    def score(loop: ClosedLoop, step: int, success: float, status: int = 0, weights: str | None = None) -> float:
        (checkpoint / "model.safetensors").write_text(weights or f"weights of step {step}")
        found = {"weights": native.weights_hash(checkpoint), "success": success, "status": status}
        program.write_text(EVALUATOR.format(python=python, **found))
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return loop.score(checkpoint, step)

    return score


def saw(loop: ClosedLoop, step: int) -> tuple[list[str], list[str]]:
    """The evaluator's command line, and the files that it found in its folder."""
    words, kept = json.loads((loop.out / "evaluations" / f"step-{step}" / "saw.json").read_text())
    return words, kept


def best(loop: ClosedLoop) -> str:
    return (loop.out / "best" / "model.safetensors").read_text()


def test_the_best_checkpoint_is_kept(scored: Score, checkpoint: Path) -> None:
    loop = ClosedLoop(checkpoint.parent, 10, {})
    for step, success, kept in ((10, 0.2, 10), (20, 0.6, 20), (30, 0.5, 20), (40, 0.6, 40)):
        assert scored(loop, step, success) == success
        assert best(loop) == f"weights of step {kept}"


def test_scores_beyond_the_point_where_a_run_resumed_do_not_count(scored: Score, checkpoint: Path) -> None:
    loop = ClosedLoop(checkpoint.parent, 10, {})
    scored(loop, 30, 0.9)
    scored(loop, 20, 0.5)
    assert best(loop) == "weights of step 20"


@pytest.mark.parametrize("status", [2, 3])
def test_an_evaluation_that_was_refused_gives_no_old_score(scored: Score, checkpoint: Path, status: int) -> None:
    loop = ClosedLoop(checkpoint.parent, 10, {})
    scored(loop, 10, 0.9)
    with pytest.raises(InputError, match=f"cadence-eval failed with status {status}: error: refused"):
        scored(loop, 10, 0.1, status)


def test_episodes_that_broke_do_not_stop_the_run(scored: Score, checkpoint: Path) -> None:
    assert scored(ClosedLoop(checkpoint.parent, 10, {}), 10, 0.4, status=1) == 0.4


def test_an_evaluation_of_other_weights_is_forgotten_and_of_the_same_continued(scored: Score, checkpoint: Path) -> None:
    loop = ClosedLoop(checkpoint.parent, 10, {})
    scored(loop, 10, 0.9)
    scored(loop, 10, 0.9)
    assert saw(loop, 10)[1] != []
    assert scored(loop, 10, 0.1, weights="trained again") == 0.1
    assert saw(loop, 10)[1] == []
    assert best(loop) == "trained again"


def test_what_the_evaluation_is_told_arrives_as_it_is(scored: Score, checkpoint: Path, tmp_path: Path) -> None:
    told = {"overlay": "a b (1),c=d.png", "tasks": ["a", "b c"], "video": False, "episodes": 3, "variants": None}
    loop = ClosedLoop(checkpoint.parent, 10, told)
    scored(loop, 10, 0.5)
    words, _ = saw(loop, 10)
    assert words[:3] == ["-m", "eval.attached", "eval"]
    read = {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(words[3:])}
    folder = loop.out / "evaluations" / "step-10"
    assert OmegaConf.create(read) == {**told, "checkpoint": str(checkpoint), "out": str(folder), "policy": "local"}


def test_an_evaluation_ends_with_a_trainer_that_is_killed(checkpoint: Path, tmp_path: Path) -> None:
    waiting, pipe = tmp_path / "waiting", tmp_path / "waiting.pid"
    waiting.write_text('#!/bin/sh\necho $$ > "$0.pid"\nexec cat\n')  # until standard input closes, as eval.attached
    waiting.chmod(0o755)
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    code = (  # torch takes seconds to load, and is not needed
        "import sys; from pathlib import Path; from types import SimpleNamespace\n"
        "sys.modules['vla.checkpoints.native'] = SimpleNamespace(weights_hash=lambda _: '')\n"
        "from vla.training.closed_loop import ClosedLoop\n"
        "sys.executable, place = sys.argv[1], Path(sys.argv[2]); ClosedLoop(place.parent, 1, {}).score(place, 1)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(waiting), str(checkpoint)]) as training:
        assert select.select([reading], [], [], 120)[0]
        evaluation = psutil.Process(int(os.read(reading, 100)))
        assert evaluation.is_running()
        training.kill()
        evaluation.wait(timeout=30)
    os.close(reading)


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
    with pytest.raises(InputError, match=r"cadence-eval failed with status 2: error: .*no_such_task"):
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


def test_runs_of_the_same_name_are_apart_in_wandb_and_keep_their_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids: list[str] = []

    def init(**options: Any) -> SimpleNamespace:
        ids.append(options["id"])
        assert options["resume"] == "allow"
        return SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))  # type: ignore[arg-type]
    for name in ("a/tiny", "b/tiny", "a/tiny"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        with boards(tmp_path / name, 0, False, "project"):
            pass
    assert ids[0] == ids[2] != ids[1]
    assert ids[0] == (tmp_path / "a/tiny/wandb_id").read_text()
