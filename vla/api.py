"""The vocabulary everyone shares: what a robot sends, what a policy answers, and what both agreed on (numpy only)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class InputError(ValueError):
    """Bad input: the message says what came, what is allowed and what to do; commands exit with status 2."""


@dataclass(frozen=True)
class Observation:
    """What one robot sees at one control step.

    Attributes:
        images: camera name -> (height, width, 3) uint8 RGB.
        instruction: what to do, in words.
        state: (S,) float32 robot state in the order of `PolicySpec.state`, or None.
        session: one robot, one episode; everything a policy remembers is kept per session.
        step: control step within the episode, from 0.
        time: [s] on the sender's monotonic clock.

    Raises:
        InputError: on a wrong dtype, shape or a value that is not finite.
    """

    images: Mapping[str, NDArray[np.uint8]]
    instruction: str
    state: NDArray[np.float32] | None = None
    session: str = "default"
    step: int = 0
    time: float = 0.0

    def __post_init__(self) -> None:
        for name, image in self.images.items():
            _check_image(name, image)
        if self.state is not None:
            _check_finite("state", self.state, dimensions=1)
        if not isinstance(self.instruction, str):
            raise InputError(f"instruction must be text, got {type(self.instruction).__name__}")
        if self.step < 0:
            raise InputError(f"step counts from 0, got {self.step}")
        object.__setattr__(self, "images", MappingProxyType(dict(self.images)))


@dataclass(frozen=True)
class ActionChunk:
    """The next actions of one robot, in physical units.

    Attributes:
        actions: (horizon, A) float32, one row per control step, columns as in `PolicySpec.actions`.
        period: [s] between rows.
        timing: stage -> milliseconds spent on this answer.

    Raises:
        InputError: on a wrong dtype, shape, a value that is not finite, or a period that is not positive.
    """

    actions: NDArray[np.float32]
    period: float
    timing: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_finite("actions", self.actions, dimensions=2)
        if not self.period > 0:
            raise InputError(f"period must be positive seconds, got {self.period}")
        object.__setattr__(self, "timing", MappingProxyType(dict(self.timing)))


@dataclass(frozen=True)
class Camera:
    """One image a policy needs: its name and its size in pixels."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class Quantity:
    """One number of a state or an action: its name and its unit, for example `Quantity("dx", "m")`."""

    name: str
    unit: str


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
    """

    cameras: tuple[Camera, ...]
    state: tuple[Quantity, ...]
    actions: tuple[Quantity, ...]
    horizon: int
    period: float
    model: str
    recipe: str = "none"
    checkpoint: str = ""

    def check(self, observation: Observation) -> None:
        """Refuse an observation this policy cannot use.

        Raises:
            InputError: naming the camera or state that is missing or has the wrong shape, and what is needed.
        """
        for camera in self.cameras:
            image = observation.images.get(camera.name)
            needed = f"camera {camera.name!r} of {camera.height} x {camera.width}"
            if image is None:
                raise InputError(f"this policy needs {needed}; the observation has {sorted(observation.images)}")
            if image.shape[:2] != (camera.height, camera.width):
                raise InputError(f"this policy needs {needed}; the image is {image.shape[0]} x {image.shape[1]}")
        got = None if observation.state is None else len(observation.state)
        if self.state and got != len(self.state):
            names = [quantity.name for quantity in self.state]
            raise InputError(f"this policy needs a state of {len(names)} numbers {names}; the observation has {got}")


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


def _check_image(name: str, image: NDArray[np.uint8]) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"image {name!r} must be uint8 (height, width, 3) RGB, got {got}")


def _check_finite(name: str, array: NDArray[np.float32], dimensions: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim != dimensions:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{name} must be float32 with {dimensions} dimension(s), got {got}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds values that are not finite: {array[~np.isfinite(array)][:4]}")
