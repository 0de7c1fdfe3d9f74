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
from vla.images import LETTERBOX, Resize
from vla.moments import Moments
from vla.rotations import euler_angles, rotation_vector

VECTOR, EULER = "vector", "euler"
GRIPPER = "gripper"  # among the numbers of a robot's state: 1 is open
_OPTIONAL = ("resize", "rotation", "command_threshold", "lowercase")  # left out of JSON at their defaults


@dataclass(frozen=True)
class Range:
    """Maps the middle 98 % of each number's values to [-1, 1] (OpenVLA's and CogACT's normalisation).

    Attributes:
        q01, q99: quantiles of each number in its unit; a number that never changes has both equal, and is -1.
        mask: False leaves a number as it is (a gripper command is already -1 or 1).

    Raises:
        InputError: if they differ in length, are not finite, or are the wrong way round.
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
        empty = [i for i, (a, b, m) in enumerate(zip(self.q01, self.q99, self.mask, strict=True)) if m and not b >= a]
        if empty:
            raise InputError(f"q99 must be above q01, or equal to it; it is not for number(s) {empty}")

    def __len__(self) -> int:
        return len(self.q01)

    def normalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., dim) physical units -> about [-1, 1], not clipped."""
        low, span = self._low_and_span()
        return np.where(self.mask, 2 * (values - low) / np.where(span == 0, 1, span) - 1, values).astype(np.float32)

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
        image_mean, image_std: per channel of images in [0, 1]; six numbers for two towers that read the same image.
        state_range, action_range: normalisation; an action that is not scaled is a command of -1 or 1.
        resize: how the cameras' images become what the model reads; None: they are.
        rotation: "euler" if the model says numbers 3 to 5 of an action as roll, pitch and yaw about fixed axes [rad];
            they are handed on as a rotation vector.
        command_threshold: a command from this on is 1, below -1 (models trained on commands of 0 or 1 have 0.5).
        lowercase: whether instructions lose their capitals.

    Raises:
        InputError: naming the field, what came and what is allowed.
    """

    cameras: tuple[Camera, ...]
    state: tuple[Quantity, ...]
    actions: tuple[Quantity, ...]
    period: float
    prompt: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    state_range: Range | Moments
    action_range: Range | Moments
    resize: Resize | None = None
    rotation: str = VECTOR
    command_threshold: float = 0.0
    lowercase: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str) or "{instruction}" not in self.prompt:
            raise InputError(f"the prompt template has no {{instruction}}: {self.prompt!r}")
        _check_numbers("period", [self.period], least=0)
        _check_numbers("image_mean", self.image_mean, count=6 if len(self.image_mean) == 6 else 3)
        _check_numbers("image_std", self.image_std, count=len(self.image_mean), least=0)
        _check_numbers("command_threshold", [self.command_threshold])
        if self.rotation not in (VECTOR, EULER) or (self.rotation == EULER and len(self.actions) < 6):
            allowed = f"{VECTOR!r}, or {EULER!r} with at least 6 numbers in an action"
            raise InputError(f"rotation must be {allowed}, got {self.rotation!r} with {len(self.actions)}")
        if not isinstance(self.lowercase, bool):
            raise InputError(f"lowercase must be true or false, got {self.lowercase!r}")
        for camera in self.cameras:
            _check_numbers(f"height and width of camera {camera.name!r}", [camera.height, camera.width], least=0)
        for name, quantities, values in (
            ("state", self.state, self.state_range),
            ("action", self.actions, self.action_range),
        ):
            if len(quantities) != len(values):
                raise InputError(f"{len(quantities)} {name} names but a range of {len(values)} numbers")

    @property
    def resize_of_sender(self) -> tuple[str, int] | None:
        """(strategy, side [px]) if a sender may resize instead; not with a border, whose colour may be each tower's."""
        resize = self.resize
        return None if resize is None or resize.strategy == LETTERBOX else (resize.strategy, resize.size)

    def images(self, *observations: Observation) -> Tensor:
        """(observations, cameras, 3 or 6, height, width) float32, normalised."""
        shown = [seen.images[camera.name] for seen in observations for camera in self.cameras]
        views = torch.stack([self._resized(torch.from_numpy(np.array(each))) for each in shown])
        return self.normalise_images(views.unflatten(0, (len(observations), -1)))

    def normalise_images(self, images: Tensor) -> Tensor:
        """(..., height, width, 3 or 6) uint8 -> (..., 3 or 6, height, width) float32; towers see the same colours.

        The channels of a pixel stay side by side in memory, as they come: only the order of the dimensions changes.
        """
        if len(self.image_mean) != images.shape[-1]:
            images = torch.cat([images, images], dim=-1)  # (..., height, width, 6)
        width = images.shape[-2]
        mean, std = (
            torch.tensor(each, device=images.device).repeat(width) for each in (self.image_mean, self.image_std)
        )  # (width * channels) each: whole rows are what a processor is fast at
        rows = images.flatten(-2).to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)
        return rows.unflatten(-1, (width, -1)).movedim(-1, -3)

    def normalise_colours(self, images: Tensor) -> Tensor:
        """(..., 3 or 6, height, width) float32 in [0, 255] -> the same, normalised in place where there are enough."""
        mean = torch.tensor(self.image_mean, device=images.device)[:, None, None]
        std = torch.tensor(self.image_std, device=images.device)[:, None, None]
        if len(mean) != images.shape[-3]:
            images = torch.cat([images, images], dim=-3)  # (..., 6, height, width)
        return images.div_(255).sub_(mean).div_(std)

    def pixels(self, images: Tensor) -> Tensor:
        """The inverse of `normalise_images`, in [0, 1]: (..., channels, height, width) -> the same shape."""
        shape = (-1, 1, 1)
        mean = torch.tensor(self.image_mean, device=images.device).view(shape)
        return images * torch.tensor(self.image_std, device=images.device).view(shape) + mean

    def gripper(self, observation: Observation) -> float | None:
        """How far the gripper is open, by the robot's own state; None if the state does not say."""
        names = [quantity.name for quantity in self.state]
        if observation.state is None or GRIPPER not in names:
            return None
        return float(observation.state[names.index(GRIPPER)])

    def _resized(self, view: Tensor) -> Tensor:
        """(height, width, 3) uint8 -> (size, size, 3, or 6 if each tower has a border of its own) uint8."""
        if self.resize is None:
            return view
        fill = tuple(int(255 * mean) for mean in self.image_mean)
        if self.resize.strategy == LETTERBOX and len(fill) == 6:
            view = torch.cat([view, view], dim=-1)  # (height, width, 6)
        return self.resize(view.movedim(-1, 0), fill).movedim(0, -1)

    def text(self, instruction: str) -> str:
        """What is tokenised."""
        words = instruction.strip()
        return self.prompt.replace("{instruction}", words.lower() if self.lowercase else words)

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
            (..., A) physical units; commands that are not scaled are exactly -1 or 1.
        """
        commands = np.where(actions >= self.command_threshold, np.float32(1), np.float32(-1))
        physical = np.where(self.action_range.mask, self.action_range.unnormalise(actions), commands)
        if self.rotation == EULER:
            physical[..., 3:6] = rotation_vector(physical[..., 3:6])
        return physical

    def normalised_actions(self, physical: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inverse of `physical_actions` up to rounding: (..., A) physical units -> (..., A) normalised."""
        if self.rotation == EULER:
            physical = np.concatenate([physical[..., :3], euler_angles(physical[..., 3:6]), physical[..., 6:]], axis=-1)
        off = np.float32(2 * self.command_threshold - 1)  # the threshold lies midway between the two commands
        commands = np.where(physical > 0, np.float32(1), off)
        return np.where(self.action_range.mask, self.action_range.normalise(physical), commands)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        at_default = {f.name for f in fields(self) if f.name in _OPTIONAL and getattr(self, f.name) == f.default}
        return {name: value for name, value in asdict(self).items() if name not in at_default}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Processing":
        """The inverse of `to_dict`.

        Raises:
            InputError: naming every key that is missing, unknown or of the wrong kind.
        """
        _check_keys(cls, values, _OPTIONAL)
        resize = values.get("resize")
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
            resize=None if resize is None else _build(Resize, resize),
            **{name: values[name] for name in ("rotation", "command_threshold", "lowercase") if name in values},
        )


def _range(name: str, values: Any) -> Range | Moments:
    kind = Moments if isinstance(values, Mapping) and "mean" in values else Range
    _check_keys(kind, values)
    try:
        return kind(**{key: _list(key, numbers) for key, numbers in values.items()})
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


def _check_keys(kind: type, values: Any, optional: Sequence[str] = ()) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"{kind.__name__} must be an object, got {values!r}")
    known = {field.name for field in fields(kind)}
    unknown, missing = sorted(set(values) - known), sorted(known - set(optional) - set(values))
    if unknown or missing:
        raise InputError(f"{kind.__name__}: unknown keys {unknown}, missing keys {missing}")
