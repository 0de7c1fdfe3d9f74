"""What a published pi0 and its user say about a robot -> processing: cameras, numbers, their units and moments."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tokenizers

from vla.api import Camera, InputError, Quantity
from vla.checkpoints.checkpoint import Choices
from vla.embodiments import ACTIONS, BY_DATASET, Embodiment
from vla.images import Resize
from vla.moments import Moments
from vla.processing import VECTOR, Processing
from vla.tokenizer import load_tokenizer

TOKENIZER = "tokenizer.json"
_PROMPT = "{instruction}\n"
_GRIPPER_OPENS = 0.5  # of datasets whose commands are 0 or 1


@dataclass(frozen=True)
class Robot:
    """What a checkpoint says about its robot.

    Attributes:
        cameras: in the order the model sees them; empty if the checkpoint does not say.
        state, action: normalisation; their lengths are how many numbers the robot has.
        action_names: empty if the checkpoint does not say.
    """

    cameras: tuple[Camera, ...]
    state: Moments
    action: Moments
    action_names: tuple[str, ...] = ()


def processing(robot: Robot, choices: Choices, resize: Resize, source: object) -> Processing:
    """What published code does around the model.

    Args:
        robot: as the checkpoint describes it.
        choices: what its user adds: `dataset` names a robot that is known.
        resize: how images become square.
        source: for messages.

    Raises:
        InputError: if neither says what the cameras or the period are.
    """
    known = _known(choices)
    action, threshold = robot.action, 0.0
    usual = known is not None and len(action) == len(ACTIONS)
    if usual:
        action, threshold = _with_command(action)
    rotation = choices.rotation or (known.rotation if known is not None and usual else VECTOR)
    return Processing(
        cameras=_cameras(robot.cameras, known, choices, source),
        state=tuple(Quantity(f"state_{i}", "1") for i in range(len(robot.state))),
        actions=ACTIONS if usual else _named(robot),
        period=_period(known, choices, source),
        prompt=_PROMPT,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        state_range=robot.state,
        action_range=action,
        resize=resize,
        rotation=rotation,
        command_threshold=threshold,
        lowercase=False,
    )


def gemma_words(directory: Path, *beside: Path) -> tokenizers.Tokenizer:
    """PaliGemma's tokenizer in a directory or in one of those beside it.

    Raises:
        InputError: if it is missing or damaged.
    """
    return load_tokenizer(tokenizer_file(directory, *beside))


def tokenizer_file(directory: Path, *beside: Path) -> Path:
    """Where the tokenizer is.

    Raises:
        InputError: if it is missing.
    """
    for place in (directory, *beside):
        if (place / TOKENIZER).is_file():
            return place / TOKENIZER
    raise InputError(
        f"{directory / TOKENIZER} is missing: copy the {TOKENIZER} of google/paligemma-3b-pt-224 there; "
        "this checkpoint only names it"
    )


def _known(choices: Choices) -> Embodiment | None:
    if choices.dataset is None:
        return None
    if choices.dataset not in BY_DATASET:
        raise InputError(f"nothing is known about dataset={choices.dataset}; known: {', '.join(BY_DATASET)}")
    return BY_DATASET[choices.dataset]


def _cameras(said: Sequence[Camera], known: Embodiment | None, choices: Choices, source: object) -> tuple[Camera, ...]:
    """The checkpoint's cameras under the names and in the sizes that the user gives them."""
    cameras = list(said) or ([known.camera] if known else [])
    names = list(choices.camera or ()) or [camera.name for camera in cameras]
    if not cameras and None not in (choices.camera, choices.height, choices.width):
        cameras = [Camera(name, 1, 1) for name in names]
    if not cameras:
        raise InputError(
            f"{source} does not say what the cameras are; {_say('camera=[<name>,...] height=<px> width=<px>')}"
        )
    if len(names) != len(cameras):
        raise InputError(
            f"{source} has {len(cameras)} cameras {[c.name for c in cameras]}, camera= names {len(names)}: {names}"
        )
    return tuple(
        replace(camera, name=name, height=choices.height or camera.height, width=choices.width or camera.width)
        for camera, name in zip(cameras, names, strict=True)
    )


def _period(known: Embodiment | None, choices: Choices, source: object) -> float:
    if choices.period is not None:
        return choices.period
    if known is None:
        raise InputError(f"{source} does not say how long one action lasts; {_say('period=<s>')}")
    return known.period


def _say(what: str) -> str:
    return f"say so with cadence-convert and {what}, or with dataset=<key> of a known robot: {', '.join(BY_DATASET)}"


def _named(robot: Robot) -> tuple[Quantity, ...]:
    count = len(robot.action)
    names = robot.action_names if len(robot.action_names) == count else [f"action_{i}" for i in range(count)]
    return tuple(Quantity(name, "1") for name in names)


def _with_command(action: Moments) -> tuple[Moments, float]:
    """Moments that leave the gripper's command as it is, and where it changes, in the model's numbers."""
    mean, std = action.mean[-1], action.std[-1]
    if not std > 0:
        raise InputError(f"the gripper's command never changed in training: std must be positive, got {std}")
    return replace(action, mask=(*action.mask[:-1], False)), (_GRIPPER_OPENS - mean) / std
