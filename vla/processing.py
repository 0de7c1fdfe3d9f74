"""Between the robot's units and the model's tensors: images, prompts, states and actions, in training and in use."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla.api import Camera, InputError, Observation, Quantity


@dataclass(frozen=True)
class Range:
    """Maps the middle 98 % of each number's values to [-1, 1] (OpenVLA's and CogACT's normalisation).

    Attributes:
        q01, q99: quantiles of each number in its unit.
        mask: False leaves a number as it is (a gripper command is already -1 or 1).

    Raises:
        InputError: if they differ in length, are not finite, or enclose nothing.
    """

    q01: tuple[float, ...]
    q99: tuple[float, ...]
    mask: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not len(self.q01) == len(self.q99) == len(self.mask):
            raise InputError(f"q01, q99 and mask differ in length: {len(self.q01)}, {len(self.q99)}, {len(self.mask)}")
        _check_numbers("q01", self.q01)
        _check_numbers("q99", self.q99)
        if not all(isinstance(scaled, bool) for scaled in self.mask):
            raise InputError(f"mask must hold true or false, got {list(self.mask)}")
        empty = [i for i, (a, b, m) in enumerate(zip(self.q01, self.q99, self.mask, strict=True)) if m and not b > a]
        if empty:
            raise InputError(f"q99 must be above q01, it is not for number(s) {empty}")

    def normalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., dim) physical units -> about [-1, 1], not clipped."""
        low, span = self._low_and_span()
        return np.where(self.mask, 2 * (values - low) / span - 1, values).astype(np.float32)

    def unnormalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., dim) [-1, 1], clipped -> physical units."""
        low, span = self._low_and_span()
        clipped = np.clip(values, -1, 1)
        return np.where(self.mask, (clipped + 1) / 2 * span + low, clipped).astype(np.float32)

    def _low_and_span(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        low = np.array(self.q01, np.float32)
        return low, np.where(self.mask, np.array(self.q99, np.float32) - low, 1).astype(np.float32)


@dataclass(frozen=True)
class Processing:
    """What a checkpoint must know beside its weights.

    Attributes:
        cameras: images, in the order the model sees them.
        state: numbers of the robot state; empty if the model reads none.
        actions: numbers of one action.
        period: [s] between the actions of a chunk.
        prompt: template with `{instruction}`.
        image_mean, image_std: per colour channel of images in [0, 1].
        state_range, action_range: normalisation; an action that is not scaled is a command of -1 or 1.

    Raises:
        InputError: naming the field, what came and what is allowed.
    """

    cameras: tuple[Camera, ...]
    state: tuple[Quantity, ...]
    actions: tuple[Quantity, ...]
    period: float
    prompt: str
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    state_range: Range
    action_range: Range

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or "{instruction}" not in self.prompt:
            raise InputError(f"the prompt template has no {{instruction}}: {self.prompt!r}")
        _check_numbers("period", [self.period], least=0)
        _check_numbers("image_mean", self.image_mean, count=3)
        _check_numbers("image_std", self.image_std, count=3, least=0)
        for camera in self.cameras:
            _check_numbers(f"height and width of camera {camera.name!r}", [camera.height, camera.width], least=0)
        for name, quantities, values in (
            ("state", self.state, self.state_range),
            ("action", self.actions, self.action_range),
        ):
            if len(quantities) != len(values.q01):
                raise InputError(f"{len(quantities)} {name} names but a range of {len(values.q01)} numbers")

    def images(self, observation: Observation) -> Tensor:
        """(1, cameras, 3, height, width) float32, normalised."""
        views = [torch.from_numpy(np.array(observation.images[camera.name])) for camera in self.cameras]
        return self.normalise_images(torch.stack(views)[None])

    def normalise_images(self, images: Tensor) -> Tensor:
        """(..., height, width, 3) uint8 -> (..., 3, height, width) float32."""
        mean = torch.tensor(self.image_mean, device=images.device)
        std = torch.tensor(self.image_std, device=images.device)
        return ((images.float() / 255 - mean) / std).movedim(-1, -3)

    def text(self, instruction: str) -> str:
        """What is tokenised."""
        return self.prompt.replace("{instruction}", instruction.lower().strip())

    def state_numbers(self, observation: Observation) -> Tensor | None:
        """(1, S) float32, normalised; None if the model reads no state."""
        if not self.state or observation.state is None:
            return None
        return torch.from_numpy(self.state_range.normalise(observation.state))[None]

    def physical_actions(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a model put out -> what a robot executes.

        Args:
            actions: (..., A) normalised.

        Returns:
            (..., A) physical units; commands that are not scaled are exactly -1 or 1, whichever is nearer.
        """
        commands = np.where(actions >= 0, np.float32(1), np.float32(-1))
        return np.where(self.action_range.mask, self.action_range.unnormalise(actions), commands)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Processing":
        """The inverse of `to_dict`.

        Raises:
            InputError: naming every key that is missing, unknown or of the wrong kind.
        """
        _check_keys(cls, values)
        return cls(
            cameras=tuple(_build(Camera, camera) for camera in _list("cameras", values["cameras"])),
            state=tuple(_build(Quantity, quantity) for quantity in _list("state", values["state"])),
            actions=tuple(_build(Quantity, quantity) for quantity in _list("actions", values["actions"])),
            period=values["period"],
            prompt=values["prompt"],
            image_mean=_list("image_mean", values["image_mean"]),
            image_std=_list("image_std", values["image_std"]),
            state_range=_range("state_range", values["state_range"]),
            action_range=_range("action_range", values["action_range"]),
        )


def _range(name: str, values: Any) -> Range:
    _check_keys(Range, values)
    try:
        return Range(**{key: _list(key, numbers) for key, numbers in values.items()})
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _build(kind: type, values: Any) -> Any:
    _check_keys(kind, values)
    wrong = [field.name for field in fields(kind) if type(values[field.name]) is not field.type]
    if wrong:
        raise InputError(f"{kind.__name__} has values of the wrong kind for {wrong}: {dict(values)}")
    return kind(**values)


def _list(name: str, values: Any) -> Any:
    """A tuple of what JSON has as a list."""
    if not isinstance(values, list | tuple):
        raise InputError(f"{name} must be a list, got {values!r}")
    return tuple(values)


def _check_numbers(name: str, values: Sequence[Any], count: int | None = None, least: float = -math.inf) -> None:
    """Refuse what is not `count` finite numbers above `least`."""
    bad = [v for v in values if isinstance(v, bool) or not isinstance(v, int | float) or not least < v < math.inf]
    if bad or len(values) != (len(values) if count is None else count):
        bounds = "" if least == -math.inf else f" above {least}"
        raise InputError(f"{name} must be {count or len(values)} finite number(s){bounds}, got {list(values)}")


def _check_keys(kind: type, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"{kind.__name__} must be an object, got {values!r}")
    known = {field.name for field in fields(kind)}
    unknown, missing = sorted(set(values) - known), sorted(known - set(values))
    if unknown or missing:
        raise InputError(f"{kind.__name__}: unknown keys {unknown}, missing keys {missing}")
