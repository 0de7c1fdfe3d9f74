"""Success while training: the checkpoint is scored by `cadence-eval`, in a process of its own, and the best is kept."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.api import InputError
from vla.checkpoints import native
from vla.overrides import argument
from vla.training.checks import require_kind, require_whole

_RESULTS, _RUN = "results.json", "run.json"
_DIRECTORY = "evaluations"
_FINISHED = (0, 1)  # exit statuses of cadence-eval; with 1 some episodes ended in errors


@dataclass(frozen=True)
class ClosedLoop:
    """Scores checkpoints and keeps the best.

    Attributes:
        out: directory of the run; scores go to `out/evaluations/step-<number>`, the best checkpoint to `out/best`.
        every: steps between two evaluations; 0: never.
        options: what `cadence-eval` is told besides the checkpoint.

    Raises:
        InputError: if `every` is no such number, or an option is the run's to decide.
    """

    out: Path
    every: int
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        require_whole("evaluate.every", self.every, 0)
        if taken := sorted({"checkpoint", "out", "policy", "resume"} & set(self.options)):
            raise InputError(f"evaluate: {', '.join(taken)} cannot be chosen, the run does; leave it out")

    @classmethod
    def of(cls, out: Path, options: Any) -> "ClosedLoop":
        """From the options `evaluate`: `every`, and what `cadence-eval` is told.

        Raises:
            InputError: as above, or if they have another form.
        """
        require_kind("evaluate", options, dict, "a group of options")
        rest = {name: value for name, value in options.items() if name != "every"}
        return cls(out, options.get("every", 0), rest)

    def is_due(self, step: int, last: int) -> bool:
        """Whether to score after this step, the last one included."""
        return self.every > 0 and (step % self.every == 0 or step == last)

    def score(self, checkpoint: Path, step: int) -> float:
        """Mean success of a checkpoint; the best one is copied to `out/best`.

        An evaluation of the same weights that was interrupted goes on where it was; one of others is forgotten.

        Raises:
            InputError: if the evaluation fails, with what it said last.
        """
        folder = self.out / _DIRECTORY / f"step-{step}"
        if _evaluated(folder) != native.weights_hash(checkpoint):
            shutil.rmtree(folder, ignore_errors=True)
        (folder / _RESULTS).unlink(missing_ok=True)  # what is there afterwards is new
        chosen = {"checkpoint": checkpoint, "out": folder, "policy": "local", **self.options}
        status, complaint = _evaluate([argument(name, value) for name, value in chosen.items()])
        if status not in _FINISHED or not (folder / _RESULTS).exists():
            raise InputError(f"evaluate: cadence-eval failed with status {status}: {_last_line(complaint)}")
        scores = self._scores(step)
        if scores[step] >= max(scores.values()):
            self._keep(checkpoint)
        return scores[step]

    def _scores(self, until: int) -> dict[int, float]:
        """Step -> mean success; evaluations of a past that this run forgot are left out."""
        found: dict[int, float] = {}
        for path in (self.out / _DIRECTORY).glob(f"step-*/{_RESULTS}"):
            step = int(path.parent.name.removeprefix("step-"))
            if step <= until:
                found[step] = json.loads(path.read_text())["mean_success"] or 0.0
        return found

    def _keep(self, checkpoint: Path) -> None:
        best, partial = self.out / "best", self.out / "best.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(checkpoint, partial)
        shutil.rmtree(best, ignore_errors=True)
        partial.rename(best)


def _evaluated(folder: Path) -> str | None:
    """Hash of the weights that a folder holds an evaluation of; None if it does not say."""
    try:
        return json.loads((folder / _RUN).read_text())["checkpoint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _evaluate(arguments: list[str]) -> tuple[int, str]:
    """Run `cadence-eval`, which ends with this process if it is killed; its exit status and what it complained of."""
    command = [sys.executable, "-m", "eval.attached", "eval", *arguments]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=nowhere, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        complaint = process.stderr.read()  # not `communicate`, which closes standard input: eval.attached would end
        return process.wait(), complaint


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
