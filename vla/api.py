"""The vocabulary everyone shares: what a robot sends, what a policy answers, and what both agreed on (numpy only)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

LARGEST_INTEGER = 2**63 - 1
INTEGERS, NUMBERS = (int, np.integer), (int, float, np.integer, np.floating)
UINT8, FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)


class InputError(ValueError):
    """Bad input: the message says what came, what is allowed and what to do; commands exit with status 2."""


class ActionError(InputError):
    """Actions that no robot may execute: of a wrong shape or not finite."""


@dataclass(frozen=True)
class Observation:
    """What one robot sees at one control step.

    Attributes:
        images: camera name -> (height, width, 3) uint8 RGB.
        instruction: what to do, in words.
        state: (S,) float32 robot state in the order of `PolicySpec.state`, or None.
        session: one robot, one episode; everything a policy remembers is kept per session.
        step: control step within the episode, from 0; a numpy integer becomes an int.
        time: [s] on the sender's monotonic clock; a numpy number becomes a float.
        committed: (rows, A) float32 actions that the robot will otherwise execute from this step on, in physical
            units, or None; only for a policy whose spec says `inpaints`.
        frozen: rows of `committed` that will have been executed before the answer comes; the answer repeats them.

    Raises:
        InputError: on a wrong type, dtype, shape or a value that is not finite.
    """

    images: Mapping[str, NDArray[np.uint8]]
    instruction: str
    state: NDArray[np.float32] | None = None
    session: str = "default"
    step: int = 0
    time: float = 0.0
    committed: NDArray[np.float32] | None = None
    frozen: int = 0

    def __post_init__(self) -> None:
        for name, image in self.images.items():
            _check_image(name, image)
        if self.state is not None:
            _check_finite("state", self.state, dimensions=1)
        _check_text("instruction", self.instruction)
        _check_text("session", self.session)
        object.__setattr__(self, "step", _integer("step", self.step, least=0))
        object.__setattr__(self, "time", _number("time", self.time))
        object.__setattr__(self, "frozen", _integer("frozen", self.frozen, least=0))
        if self.committed is not None:
            _check_finite("committed", self.committed, dimensions=2)
        rows = 0 if self.committed is None else len(self.committed)
        if self.frozen > rows:
            raise InputError(f"frozen must be at most the {rows} committed row(s), got {self.frozen}")
        object.__setattr__(self, "images", MappingProxyType(dict(self.images)))


@dataclass(frozen=True)
class ActionChunk:
    """The next actions of one robot, in physical units.

    Attributes:
        actions: (horizon, A) float32, one row per control step, columns as in `PolicySpec.actions`.
        period: [s] between rows.
        timing: stage -> milliseconds spent on this answer.
        statistics: further numbers about it, such as how many words of it each pass of a language model gave.

    Raises:
        ActionError: on a wrong dtype, shape, a value that is not finite, or a period that is not positive and finite.
    """

    actions: NDArray[np.float32]
    period: float
    timing: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            _check_finite("actions", self.actions, dimensions=2)
            object.__setattr__(self, "period", _seconds("period", self.period))
        except InputError as error:
            raise ActionError(str(error)) from None
        for name in ("timing", "statistics"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True)
class Camera:
    """One image a policy needs: its name and its size in pixels.

    Raises:
        InputError: on a name that is not text, or a size that is not a whole number of at least 1.
    """

    name: str
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_text("a camera's name", self.name)
        for side in ("height", "width"):
            size = _integer(f"the {side} of camera {self.name!r}", getattr(self, side), least=1)
            object.__setattr__(self, side, size)


@dataclass(frozen=True)
class Quantity:
    """One number of a state or an action: its name and its unit, for example `Quantity("dx", "m")`.

    Raises:
        InputError: on a name or a unit that is not text.
    """

    name: str
    unit: str

    def __post_init__(self) -> None:
        _check_text("a quantity's name", self.name)
        _check_text(f"the unit of {self.name!r}", self.unit)


@dataclass(frozen=True)
class PolicySpec:
    """What a policy needs and gives; a client compares it with its robot before the first step.

    Attributes:
        cameras: images needed, in the order the policy uses them.
        state: numbers of `Observation.state`; empty if the policy reads none.
        actions: columns of `ActionChunk.actions`.
        horizon: rows of a chunk.
        period: [s] between rows.
        model: model name, for example `tiny`.
        recipe: acceleration recipe, for example `none`.
        checkpoint: hash of the weights, or "" for a policy without weights.
        inpaints: whether chunks can continue `Observation.committed`.
        resize: (strategy, side [px]) of what the policy makes of its images first, or None; a sender may do the same
            with `vla.resampling.square` and send less.

    Raises:
        InputError: on a name that comes twice, a horizon below 1, or a period that is not positive and finite.
    """

    cameras: tuple[Camera, ...]
    state: tuple[Quantity, ...]
    actions: tuple[Quantity, ...]
    horizon: int
    period: float
    model: str
    recipe: str = "none"
    checkpoint: str = ""
    inpaints: bool = False
    resize: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        for part in ("cameras", "state", "actions"):
            object.__setattr__(self, part, tuple(getattr(self, part)))
            _check_unique(part, [item.name for item in getattr(self, part)])
        for name in ("model", "recipe", "checkpoint"):
            _check_text(name, getattr(self, name))
        if not isinstance(self.inpaints, bool):
            raise InputError(f"inpaints must be true or false, got {_shown(self.inpaints)}")
        if self.resize is not None:
            strategy, side = self.resize
            _check_text("the strategy of resize", strategy)
            object.__setattr__(self, "resize", (strategy, _integer("the side of resize", side, least=1)))
        object.__setattr__(self, "horizon", _integer("horizon", self.horizon, least=1))
        object.__setattr__(self, "period", _seconds("period", self.period))

    def check(self, observation: Observation) -> None:
        """Refuse an observation this policy cannot use.

        Raises:
            InputError: naming the camera, state or committed actions that are missing or have the wrong shape, and
                what is needed.
        """
        for camera in self.cameras:
            image = observation.images.get(camera.name)
            if image is None or image.shape[:2] not in self._sizes(camera):
                size = None if image is None else f"the image is {image.shape[0]} x {image.shape[1]}"
                got = size or f"the observation has {sorted(observation.images)}"
                raise InputError(f"this policy needs camera {camera.name!r} of {camera.height} x {camera.width}; {got}")
        got = None if observation.state is None else len(observation.state)
        if self.state and got != len(self.state):
            names = [quantity.name for quantity in self.state]
            raise InputError(f"this policy needs a state of {len(names)} numbers {names}; the observation has {got}")
        if observation.committed is not None:
            self._check_committed(observation.committed)

    def _sizes(self, camera: Camera) -> list[tuple[int, int]]:
        """(height, width) [px] that an image may have."""
        return [(camera.height, camera.width), *([] if self.resize is None else [(self.resize[1], self.resize[1])])]

    def _check_committed(self, committed: NDArray[np.float32]) -> None:
        if not self.inpaints:
            raise InputError("this policy cannot continue committed actions; the observation has some")
        rows, columns = committed.shape
        if not 1 <= rows <= self.horizon or columns != len(self.actions):
            needed = f"1 to {self.horizon} committed rows of {len(self.actions)}"
            raise InputError(f"this policy can continue {needed} actions; the observation has {rows} of {columns}")


class Policy(Protocol):
    """Anything that turns observations into actions: local, remote, recorded, scripted or random."""

    @property
    def spec(self) -> PolicySpec: ...

    def infer(self, observation: Observation) -> ActionChunk:
        """Answer the next actions.

        Raises:
            InputError: if the observation does not fit `spec`.
        """
        ...

    def reset(self, session: str) -> None:
        """Forget everything remembered for this session."""
        ...


@runtime_checkable
class BatchPolicy(Policy, Protocol):
    """A Policy that can answer several sessions at once."""

    def infer_batch(self, observations: Sequence[Observation]) -> Sequence[ActionChunk]:
        """Answer each observation as `infer` would, up to rounding; no two are of one session.

        Raises:
            InputError: if one of them does not fit `spec`; then nothing is remembered of any.
        """
        ...


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, got {type(value).__name__}")


def _shown(value: object) -> str:
    """A value for an error message, never long."""
    return f"{value!r:.80}" if not isinstance(value, int) or abs(value) <= LARGEST_INTEGER else "one beyond 64 bits"


def _check_unique(what: str, names: Iterable[str]) -> None:
    listed = list(names)
    if twice := sorted({name for name in listed if listed.count(name) > 1}):
        raise InputError(f"names of {what} must be unique, got {', '.join(map(repr, twice))} more than once")


def _integer(name: str, value: object, least: int) -> int:
    """A plain int; True and False are none."""
    if isinstance(value, INTEGERS) and not isinstance(value, bool) and least <= value <= LARGEST_INTEGER:
        return int(value)
    raise InputError(f"{name} must be a whole number of at least {least}, got {_shown(value)}")


def _number(name: str, value: object) -> float:
    """A plain, finite float; True and False are none."""
    if isinstance(value, NUMBERS) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise InputError(f"{name} must be a finite number, got {_shown(value)}")


def _seconds(name: str, value: object) -> float:
    seconds = _number(name, value)
    if not seconds > 0:
        raise InputError(f"{name} must be positive seconds, got {value!r}")
    return seconds


def _check_image(name: str, image: NDArray[np.uint8]) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != UINT8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image {name!r} must be uint8 (height, width, 3) RGB, got {got}")


def _check_finite(name: str, array: NDArray[np.float32], dimensions: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != FLOAT32 or array.ndim != dimensions:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{name} must be float32 with {dimensions} dimension(s), got {got}")
    if np.count_nonzero(np.isfinite(array)) < array.size:  # half the time of `all`
        raise InputError(f"{name} holds values that are not finite: {array[~np.isfinite(array)][:4]}")
