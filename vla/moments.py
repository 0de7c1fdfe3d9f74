"""Normalisation by mean and standard deviation, as pi0's policies do it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError

_EPSILON = 1e-8  # LeRobot's and transformers'


@dataclass(frozen=True)
class Moments:
    """Maps each number to mean 0 and standard deviation 1, unclipped (LeRobot `MEAN_STD`, transformers `PI0Processor`).

    Attributes:
        mean, std: of each number in its unit.
        mask: False leaves a number as it is.

    Raises:
        InputError: if they differ in length, are not finite, or a deviation is below 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mask: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == len(self.mask):
            raise InputError(
                f"mean, std and mask differ in length: {len(self.mean)}, {len(self.std)}, {len(self.mask)}"
            )
        _check_numbers("mean", self.mean)
        _check_numbers("std", self.std)
        if any(deviation < 0 for deviation in self.std):
            raise InputError(f"std must be at least 0, got {list(self.std)}")
        if not all(isinstance(scaled, bool) for scaled in self.mask):
            raise InputError(f"mask must hold true or false, got {list(self.mask)}")

    def __len__(self) -> int:
        return len(self.mean)

    def normalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., dim) physical units -> mean 0 and standard deviation 1."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return np.where(self.mask, (values - mean) / (std + np.float32(_EPSILON)), values).astype(np.float32)

    def unnormalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., dim) mean 0 and standard deviation 1 -> physical units."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return np.where(self.mask, values * std + mean, values).astype(np.float32)


def between(low: Sequence[float], high: Sequence[float]) -> Moments:
    """Moments that map `low` to -1 and `high` to 1."""
    pairs = list(zip(low, high, strict=True))
    return Moments(tuple((a + b) / 2 for a, b in pairs), tuple((b - a) / 2 for a, b in pairs), (True,) * len(pairs))


def _check_numbers(name: str, values: Sequence[Any]) -> None:
    bad = [v for v in values if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v)]
    if bad:
        raise InputError(f"{name} must be finite numbers, got {list(values)}")
