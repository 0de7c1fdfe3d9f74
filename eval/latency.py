"""How long a robot waits for each answer, in simulated time: as measured, a constant, or drawn from a recording.

Draws depend on the session and on the number of the question alone, so a run can be repeated and continued exactly.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.results import parse_records
from eval.rollout import ROUND_TRIP, stable_hash
from vla.api import InputError

_ALLOWED = (
    "a number of milliseconds, or a file: profile.json (profile.json#fast for its recipe fast), the episodes.jsonl or "
    "the folder of an earlier run, or a JSON list of milliseconds"
)


class Latency(Protocol):
    """Gives the latency of each answer."""

    def of(self, session: str, question: int, measured: float) -> float:
        """[ms] that this answer takes in simulated time.

        Args:
            session: one episode.
            question: its number within the episode, from 0.
            measured: [ms] that it took on this machine.
        """
        ...

    @property
    def digest(self) -> str:
        """Tells one distribution from another; "" if it is not known before the answers."""
        ...


class Measured:
    """What each answer took on this machine: its runs cannot be repeated exactly."""

    digest = ""

    def of(self, session: str, question: int, measured: float) -> float:
        return measured


@dataclass(frozen=True)
class Injected:
    """Drawn from a distribution, given by some of its quantiles and straight lines between them.

    Attributes:
        levels: (n,) ascending, in [0, 1]; below the first and above the last its value is taken.
        values: (n,) [ms] at each.

    Raises:
        InputError: on no value, or one that is negative, not finite or smaller than the one before.
    """

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        values = np.array(self.values, float)
        if not len(values) or not np.isfinite(values).all() or (values < 0).any() or (np.diff(values) < 0).any():
            raise InputError(f"latencies must be milliseconds of at least 0, ascending; got {list(self.values)[:10]}")

    @classmethod
    def constant(cls, milliseconds: float) -> "Injected":
        return cls((0.5,), (float(milliseconds),))

    @classmethod
    def recorded(cls, milliseconds: Sequence[float]) -> "Injected":
        """The distribution of some measurements."""
        values: NDArray[np.float64] = np.sort(np.array(milliseconds, float))
        return cls(tuple(np.linspace(0, 1, len(values)).tolist()), tuple(values.tolist()))

    @property
    def digest(self) -> str:
        return f"{stable_hash(self.levels, self.values):08x}"

    def of(self, session: str, question: int, measured: float) -> float:
        level = np.random.default_rng(stable_hash("latency", session, question)).random()
        return float(np.interp(level, self.levels, self.values))


def read_latency(value: float | str | None) -> Latency:
    """The latency that `latency_ms` names; None is the measured one.

    Raises:
        InputError: on a file that is missing or holds no latencies, or a recipe that is not in it.
    """
    if value is None:
        return Measured()
    if not isinstance(value, str):
        return Injected.constant(value)
    name, _, recipe = value.partition("#")
    path = Path(name) / "episodes.jsonl" if Path(name).is_dir() else Path(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"latency_ms={value} cannot be read: {error.strerror}; give {_ALLOWED}") from error
    if path.suffix == ".jsonl":
        return _of_run(content, path)
    try:
        return _of_json(json.loads(content), recipe)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"latency_ms={value}: {error}; give {_ALLOWED}") from error


def _of_run(content: bytes, path: Path) -> Injected:
    records = parse_records(content[: content.rfind(b"\n") + 1], path).values()
    stages = [record.latency_ms["stages"].get(ROUND_TRIP) for record in records]
    samples = [value for stage in stages if stage for value in stage["samples"]]
    if not samples:
        raise InputError(f"latency_ms={path} holds no episode with latencies; give {_ALLOWED}")
    return Injected.recorded(samples)


def _of_json(content: Any, recipe: str) -> Injected:
    if isinstance(content, list):
        if not all(isinstance(value, int | float) for value in content):
            raise ValueError("the list must hold numbers only")
        return Injected.recorded(content)
    rows = {row["recipe"]: row["stages_ms"]["total"] for row in content["rows"]}
    if recipe not in rows and (recipe or len(rows) != 1):
        raise ValueError(f"recipe {recipe!r} is none of {', '.join(rows)}")
    total = rows[recipe] if recipe else next(iter(rows.values()))
    return Injected((0.5, 0.9, 0.99), tuple(float(total[name]) for name in ("p50", "p90", "p99")))
