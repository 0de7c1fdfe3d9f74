"""What one comparison is: the keys of `configs/compare.yaml`, checked when built."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.api import InputError
from vla.overrides import argument

MEASURES = ("last_step", "any_step", "strict")


@dataclass(frozen=True)
class Settings:
    """One comparison.

    Attributes:
        runs: folders of finished runs; the first is the baseline.
        names: what to call them; None for the names of their folders.
        measure: which success counts: `last_step`, `any_step` or `strict`.
        margin: largest loss of success rate that still counts as none.
        real: file of a real robot's results, or None.
        out: folder of the results.

    Raises:
        InputError: naming the key, what came and what is allowed.
    """

    runs: tuple[str, ...]
    names: tuple[str, ...] | None
    measure: str
    margin: float
    real: str | None
    out: str

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Settings":
        """Build from the values of the configuration file and the command line."""
        runs, names = (_several(config[key]) for key in ("runs", "names"))
        return cls(**{**config, "runs": runs or (), "names": names})

    def __post_init__(self) -> None:
        for key in ("runs", "names"):
            values = getattr(self, key)
            if values is not None and not all(isinstance(value, str) and value for value in values):
                raise InputError(f"{key} must list names, got {list(values)!r}")
        if len(self.runs) < 2:
            raise InputError(f"name at least two runs, the baseline first: cadence-compare a/ b/; got {len(self.runs)}")
        if self.names is not None and (len(self.names) != len(self.runs) or len(set(self.names)) < len(self.names)):
            raise InputError(f"names must hold a different name for each of {len(self.runs)} runs, got {self.names}")
        if self.measure not in MEASURES:
            raise InputError(f"measure must be one of {', '.join(MEASURES)}; got {self.measure!r}")
        number = isinstance(self.margin, (int, float)) and not isinstance(self.margin, bool)
        if not number or not 0 < self.margin < 1:
            raise InputError(f"margin must be a success rate between 0 and 1, got {self.margin!r}")
        if self.real is not None and not isinstance(self.real, str):
            raise InputError(f"real must name a file, got {self.real!r}")
        if not isinstance(self.out, str) or not self.out:
            raise InputError(f"out must name a folder, got {self.out!r}")

    @property
    def counted(self) -> str:
        """The measure as `eval.summary.MEASURES` names it."""
        return self.measure.replace("_", " ")

    @property
    def labels(self) -> list[str]:
        """A different name for each run: its folder's name, or the path as given where those are equal."""
        if self.names is not None:
            return list(self.names)
        folders = [Path(run).resolve().name for run in self.runs]
        return folders if len(set(folders)) == len(folders) else list(self.runs)


def with_runs(arguments: Sequence[str]) -> list[str]:
    """The command line as Hydra reads it: bare words, and folders whose name holds "=", become `runs=[...]`.

    Raises:
        InputError: if runs are given both ways.
    """
    runs = [word for word in arguments if _is_run(word)]
    others = [word for word in arguments if not _is_run(word)]
    if not runs:
        return others
    if any(word.startswith("runs=") for word in others):
        raise InputError(f"give the runs as words or as runs=[...], not both; got {' '.join(arguments)}")
    quoted = [argument("run", run).removeprefix("run=") for run in runs]
    return [*others, f"runs=[{','.join(quoted)}]"]


def _is_run(word: str) -> bool:
    return not word.startswith("-") and ("=" not in word or Path(word).is_dir())


def _several(value: Any) -> tuple[Any, ...] | None:
    if value is None:
        return None
    return tuple(value) if isinstance(value, list) else (value,)
