"""What a control loop needs of a robot, and the limits that every action passes before it reaches one (numpy only)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError

TOLERANCE = 1e-6  # relative; rounding to float32 violates no limit
WORKSPACE, STEP, SPEED = "workspace", "step", "speed"


class Sensed(NamedTuple):
    """What the robot sees now.

    Attributes:
        images: camera name -> (height, width, 3) uint8 RGB.
        state: (S,) float32 in the order of the policy's spec, or None.
    """

    images: Mapping[str, NDArray[np.uint8]]
    state: NDArray[np.float32] | None


@dataclass(frozen=True)
class Speed:
    """A bound on how fast some columns of an action move together.

    Attributes:
        columns: numbers of the columns, for example (0, 1, 2) for a translation.
        limit: largest Euclidean speed, in the columns' unit per second.

    Raises:
        InputError: on a limit that is not positive.
    """

    columns: tuple[int, ...]
    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise InputError(f"a speed limit must be positive, got {self.limit}")


@dataclass(frozen=True)
class Limits:
    """What a command may ask of the robot; one entry for each column of an action, in the column's unit.

    Attributes:
        relative: True for a column that is a change (`dx`), False for one that is a position.
        step: largest change by one command; math.inf for none.
        low, high: workspace: bounds of the commanded position; -math.inf and math.inf for none.
        speeds: bounds over several columns; a command that is too fast keeps its direction.

    Raises:
        InputError: if they differ in length, a step is not positive, or a workspace is empty.
    """

    relative: Sequence[bool]
    step: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    speeds: tuple[Speed, ...] = ()

    def __post_init__(self) -> None:
        lengths = [len(values) for values in (self.relative, self.step, self.low, self.high)]
        if len(set(lengths)) != 1:
            raise InputError(f"relative, step, low and high need one entry for each column, got {lengths}")
        if not all(step > 0 for step in self.step):
            raise InputError(f"steps must be positive, got {list(self.step)}")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise InputError(f"low must be below high, got {list(self.low)} and {list(self.high)}")
        outside = [c for speed in self.speeds for c in speed.columns if not 0 <= c < lengths[0]]
        if outside:
            raise InputError(f"speeds name columns {outside}, an action has {lengths[0]}")

    @classmethod
    def none(cls, relative: Sequence[bool]) -> "Limits":
        """No limits: for a simulation, or a robot whose own controller has them."""
        count = len(relative)
        return cls(relative, [math.inf] * count, [-math.inf] * count, [math.inf] * count)

    def apply(
        self, action: NDArray[np.float32], reference: NDArray[np.floating], period: float
    ) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """The nearest command that is allowed, and which limits it took.

        A robot that is outside its workspace may come back or stay, and is not pushed.

        Args:
            action: (A,), finite.
            reference: (A,) the position a change starts from; NaN where a column has none and no limit.
            period: [s] that the command lasts.

        Returns:
            (A,) and the names of the limits; columns within all limits are unchanged, bit for bit.

        Raises:
            InputError: if the reference is not finite in a column that has a limit.
        """
        self._check_reference(reference)
        relative = np.array(self.relative)
        start = np.where(np.isfinite(reference), reference, 0.0)
        asked = np.where(relative, action, action - start)  # (A,) float64 changes
        inside = np.clip(start + asked, np.minimum(self.low, start), np.maximum(self.high, start)) - start
        touched = _differ(inside, asked, start)
        change = np.where(touched, inside, asked)
        reasons = [WORKSPACE] if touched.any() else []
        short = np.clip(change, -np.array(self.step), self.step)
        if (steps := np.abs(change) > np.multiply(self.step, 1 + TOLERANCE)).any():
            reasons.append(STEP)
            change, touched = np.where(steps, short, change), touched | steps
        for speed in self.speeds:
            columns = list(speed.columns)
            length, longest = float(np.linalg.norm(change[columns])), speed.limit * period
            if length > longest * (1 + TOLERANCE):
                reasons.append(SPEED)
                change[columns] *= longest / length
                touched[columns] = True
        limited = np.where(relative, change, start + change).astype(np.float32)
        return np.where(touched, limited, action), tuple(dict.fromkeys(reasons))

    def _check_reference(self, reference: NDArray[np.floating]) -> None:
        limited = np.isfinite(self.low) | np.isfinite(self.high)
        absolute = ~np.array(self.relative)
        limited |= absolute & np.isfinite(self.step)
        for speed in self.speeds:
            limited[list(speed.columns)] |= absolute[list(speed.columns)]
        if reference.shape != limited.shape or not np.isfinite(reference[limited]).all():
            needed = np.flatnonzero(limited).tolist()
            raise InputError(f"limits need the robot's position in columns {needed}, it is {reference.tolist()}")


class Robot(Protocol):
    """A robot that a `ControlLoop` drives. No method may wait: each is called between two commands."""

    @property
    def period(self) -> float:
        """[s] between commands."""
        ...

    @property
    def limits(self) -> Limits:
        """What commands may ask."""
        ...

    def observe(self) -> Sensed:
        """The newest images and state; arrays must not change afterwards."""
        ...

    def position(self) -> NDArray[np.floating]:
        """Where each column of an action stands now, (A,); NaN where a column has no position and no limit."""
        ...

    def apply(self, action: NDArray[np.float32]) -> None:
        """Execute this action, (A,) in physical units, for one period."""
        ...

    def hold(self) -> None:
        """Stay: what it means is the robot's own, for example the last target again, or a change of zero."""
        ...

    def stop(self) -> None:
        """Come to rest until a person starts it again; called once, and again does no harm."""
        ...


def _differ(limited: NDArray[np.float64], asked: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Columns where the two differ by more than rounding."""
    return np.abs(limited - asked) > TOLERANCE * np.maximum(np.abs(start), np.abs(start + asked))
