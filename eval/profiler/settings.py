"""What one profile measures: the keys of `configs/profile.yaml`, checked when built."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.api import InputError

LIST = "list"  # as accel: say which recipes there are, measure nothing
_NAMES = ("model", "init", "device", "dtype", "instruction", "out")


@dataclass(frozen=True)
class Settings:
    """One profile.

    Attributes:
        accel: recipes to compare; the first is what the others' speedup refers to.
        dataset: which statistics of a published checkpoint un-normalise actions; None if it has one only.
        threads: of the processor; None for as many as torch chooses.
        warm_up: answers of each recipe before measuring.
        repeats: measured answers of each recipe.
        trace: also write what one answer of each recipe does, for Perfetto.
        kept: a picture file or a task: also draw which of its visual tokens each recipe keeps.
        out: folder of `profile.json`.

    Raises:
        InputError: naming the key, what came and what is allowed.
    """

    model: str
    accel: tuple[str, ...]
    checkpoint: str | None
    dataset: str | None
    init: str
    device: str
    dtype: str
    threads: int | None
    instruction: str
    warm_up: int
    repeats: int
    trace: bool
    kept: str | None
    out: str

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Settings":
        """Build from the values of the configuration file and the command line."""
        accel = config["accel"]
        named = {key: None if config[key] is None else str(config[key]) for key in ("checkpoint", "dataset", "kept")}
        return cls(**{**config, **named, "accel": tuple(accel) if isinstance(accel, list) else (accel,)})

    def __post_init__(self) -> None:
        for key in _NAMES:
            if not isinstance(getattr(self, key), str):
                raise InputError(f"{key} must be one name, got {getattr(self, key)!r}")
        if not self.accel or not all(isinstance(recipe, str) for recipe in self.accel):
            raise InputError(f"accel must name a recipe or list several, got {list(self.accel)!r}")
        if repeated := sorted({recipe for recipe in self.accel if self.accel.count(recipe) > 1}):
            raise InputError(f"accel names {', '.join(repeated)} more than once")
        if LIST in self.accel and len(self.accel) > 1:
            raise InputError(f"accel={LIST} stands alone: it says which recipes there are, got {list(self.accel)!r}")
        if not isinstance(self.trace, bool):
            raise InputError(f"trace must be true or false, got {self.trace!r}")
        for key, least in (("warm_up", 1), ("repeats", 2), ("threads", 1)):
            value = getattr(self, key)
            if key == "threads" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{key} must be a whole number of at least {least}, got {value!r}")

    @property
    def lists_recipes(self) -> bool:
        """Whether only the recipes' names are asked for."""
        return self.accel == (LIST,)

    def writable_out(self) -> Path:
        """The folder, made if it is missing.

        Raises:
            InputError: if nothing can be written there.
        """
        folder = Path(self.out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise InputError(f"out={folder} cannot be written: {error.strerror}; choose another folder") from error
        return folder
