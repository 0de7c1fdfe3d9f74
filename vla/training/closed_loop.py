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
from vla.training.checks import require_kind, require_whole

_RESULTS = "results.json"
_DIRECTORY = "evaluations"


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

        An evaluation that was interrupted goes on where it was.

        Raises:
            InputError: if the evaluation fails, with what it said last.
        """
        folder = self.out / _DIRECTORY / f"step-{step}"
        said = [f"{name}={_argument(value)}" for name, value in self.options.items()]
        command = [sys.executable, "-m", "eval", f"checkpoint={checkpoint}", f"out={folder}", "policy=local", *said]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if not (folder / _RESULTS).exists():
            raise InputError(f"evaluate: cadence-eval failed: {_last_line(ended.stderr or ended.stdout)}")
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


def _argument(value: Any) -> str:
    return json.dumps(value).replace('"', "") if isinstance(value, list | bool) or value is None else str(value)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
