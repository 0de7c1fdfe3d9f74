"""A user's own results on a real robot: how often each policy solved each task.

CSV with the header `policy,task,successes,trials`, or YAML with a list of mappings of the same four names:

    policy,task,successes,trials
    rt-1-x,google_robot_pick_coke_can,57,75
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla.api import InputError

COLUMNS = ("policy", "task", "successes", "trials")


@dataclass(frozen=True)
class Trials:
    """What one policy did on one task.

    Attributes:
        successes: trials that succeeded, within 0..trials.
        trials: at least 1.

    Raises:
        InputError: naming what came and what is allowed.
    """

    policy: str
    task: str
    successes: int
    trials: int

    def __post_init__(self) -> None:
        for name in ("policy", "task"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InputError(f"{name} must be a name, got {value!r}")
        for name, least in (("trials", 1), ("successes", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.successes > self.trials:
            raise InputError(f"successes={self.successes} exceed trials={self.trials}")

    @property
    def rate(self) -> float:
        return self.successes / self.trials


def load(path: Path) -> dict[tuple[str, str], Trials]:
    """Read a file of real results.

    Returns:
        (policy, task) -> trials, in the order of the file.

    Raises:
        InputError: naming the file and the line or entry, what came and what is allowed.
    """
    readers = {".csv": _csv_rows, ".yaml": _yaml_rows, ".yml": _yaml_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"real results must be a .csv, .yaml or .yml file, got {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write the mark that this encoding skips
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path} cannot be read: {reason}") from error
    results: dict[tuple[str, str], Trials] = {}
    for place, row in readers[path.suffix.lower()](text, path):
        if set(row) != set(COLUMNS):
            raise InputError(f"{path}, {place}: needs exactly {', '.join(COLUMNS)}; got {', '.join(map(str, row))}")
        try:
            trials = Trials(**row)
        except InputError as error:
            raise InputError(f"{path}, {place}: {error}") from error
        if (trials.policy, trials.task) in results:
            raise InputError(f"{path}, {place}: {trials.policy} on {trials.task} is there twice")
        results[trials.policy, trials.task] = trials
    if not results:
        raise InputError(f"{path} holds no results; it needs {', '.join(COLUMNS)}")
    return results


def _csv_rows(text: str, path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True, restkey="more columns", strict=True)
    try:
        for row in reader:
            short = {name: value for name, value in row.items() if value is not None}
            yield f"line {reader.line_num}", {name: _number(name, value) for name, value in short.items()}
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from error


def _yaml_rows(text: str, path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        rows = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} must hold a list of mappings with {', '.join(COLUMNS)}")
    for number, row in enumerate(rows, start=1):
        yield f"entry {number}", row


def _number(name: str, text: Any) -> Any:
    """A count as the number it is; other text as it is, to be refused where it is shown."""
    if name not in ("successes", "trials") or not isinstance(text, str):
        return text.strip() if isinstance(text, str) else text
    return int(text) if text.strip().isdecimal() else text
