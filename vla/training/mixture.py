"""Demonstrations of one or several robots as one long sequence of frames; robots keep their own cameras and units."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError
from vla.training.dataset import Demonstrations, Statistics


@dataclass(frozen=True)
class Mixture:
    """Datasets one after another.

    Attributes:
        parts: the datasets.

    Raises:
        InputError: if they cannot train one model, naming what differs.
    """

    parts: tuple[Demonstrations, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("there is no dataset to train on")
        for what in ("number of cameras", "state numbers", "action names", "key points"):
            found = {str(_WHAT[what](part)) for part in self.parts}
            if len(found) > 1:
                raise InputError(f"the datasets differ in their {what}: {', '.join(sorted(found))}")
        for parts in self.by_robot().values():
            for name in ("period", "state_quantities", "action_quantities"):
                if len({str(getattr(part, name)) for part in parts}) > 1:
                    raise InputError(f"datasets of {parts[0].robot} differ in their {name}")
            if len({tuple(part.views) for part in parts}) > 1:
                raise InputError(f"datasets of {parts[0].robot} differ in their cameras")

    @classmethod
    def open(cls, directories: Sequence[str | Path], cameras: Sequence[str] | None, horizon: int) -> "Mixture":
        """Open datasets, see `Demonstrations.open`."""
        return cls(tuple(Demonstrations.open(directory, cameras, horizon) for directory in directories))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def by_robot(self) -> Mapping[str, tuple[Demonstrations, ...]]:
        """Robot -> its datasets, in the order in which robots come first."""
        names = dict.fromkeys(part.robot for part in self.parts)
        return {name: tuple(part for part in self.parts if part.robot == name) for name in names}

    @property
    def instructions(self) -> list[str]:
        """All texts, each once."""
        return list(dict.fromkeys(text for part in self.parts for text in part.instructions))

    def located(
        self, frames: NDArray[np.integer]
    ) -> Iterator[tuple[Demonstrations, NDArray[np.int64], NDArray[np.int64]]]:
        """Where frames are: dataset, rows in it, and their places among `frames`; one item for each dataset met."""
        ends = np.cumsum([len(part) for part in self.parts])
        numbers = np.searchsorted(ends, frames, side="right")
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            part = self.parts[number]
            yield part, (frames[places] - (ends[number] - len(part))).astype(np.int64), places

    def split(self, validation_fraction: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frames for training and for validation; each dataset is split by `Demonstrations.split`."""
        first = np.cumsum([0, *(len(part) for part in self.parts)])
        sides = [part.split(validation_fraction, seed) for part in self.parts]
        training, held_out = (
            np.concatenate([side[i] + start for side, start in zip(sides, first, strict=False)]) for i in (0, 1)
        )
        return training, held_out

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the frames."""
        if len(self.parts) == 1:
            return self.parts[0].fingerprint()
        return hashlib.sha256("".join(part.fingerprint() for part in self.parts).encode()).hexdigest()[:16]


def statistics(parts: Sequence[Demonstrations], name: str) -> Statistics:
    """Statistics of `states`, `actions` or `keypoints` over datasets of one robot."""
    return Statistics.of(np.concatenate([getattr(part, name) for part in parts]))


_WHAT = {
    "number of cameras": lambda part: len(part.views),
    "state numbers": lambda part: part.states.shape[1],
    "action names": lambda part: [quantity.name for quantity in part.action_quantities],
    "key points": lambda part: [quantity.name for quantity in part.keypoint_quantities],
}
