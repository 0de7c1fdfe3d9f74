"""What a run begins with: a new model that fits the dataset, or a checkpoint that goes on learning."""

from pathlib import Path
from typing import Any

import tokenizers

from vla.api import Camera, InputError
from vla.checkpoints import native
from vla.checkpoints.checkpoint import Checkpoint
from vla.models.cogact import CogAct, CogActConfig
from vla.models.family import name_of
from vla.processing import Processing, Range
from vla.tokenizer import BOS, COGNITION, PAD, PROMPT, build_tokenizer
from vla.training.dataset import Demonstrations, Statistics

_IMAGE_MEAN, _IMAGE_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_UNSCALED = "gripper"  # a command that is already -1 or 1

Beginning = tuple[CogAct, Processing, tokenizers.Tokenizer]


def starting(sizes: dict[str, Any], data: Demonstrations) -> Beginning:
    """A new model of these sizes.

    Raises:
        InputError: if the dataset's images are not of the model's size, or a size is wrong.
    """
    processing = processing_for(data, sizes["image_size"])
    tokenizer = build_tokenizer()
    return CogAct(_model_config(sizes, data, tokenizer)), processing, tokenizer


def origin(directory: Path) -> Checkpoint:
    """The checkpoint to go on from.

    Raises:
        InputError: if it cannot be read, or is of a family that cannot learn here.
    """
    given = native.load(directory)
    _learner(given)
    return given


def continuing(given: Checkpoint, data: Demonstrations) -> Beginning:
    """The model of a checkpoint, with its own normalisation and words.

    Raises:
        InputError: naming what the checkpoint and the dataset do not agree on.
    """
    had, has = given.processing, processing_for(data, given.model.config.image_size)
    for name in ("cameras", "state", "actions", "period"):
        mine, theirs = getattr(had, name), getattr(has, name)
        if mine != theirs:
            raise InputError(f"from: the checkpoint has {name} {mine}, the dataset {theirs}")
    return _learner(given).float().train(), had, given.tokenizer


def processing_for(data: Demonstrations, image_size: int) -> Processing:
    """The processing that fits a dataset.

    Raises:
        InputError: if its images are not of the model's size.
    """
    for name, view in data.views.items():
        if view.shape[1:3] != (image_size, image_size):
            raise InputError(f"camera {name!r} has images of {view.shape[1:3]}, the model wants {image_size} square")
    return Processing(
        cameras=tuple(Camera(name, image_size, image_size) for name in data.views),
        state=data.state_quantities,
        actions=data.action_quantities,
        period=data.period,
        prompt=PROMPT,
        image_mean=_IMAGE_MEAN,
        image_std=_IMAGE_STD,
        state_range=_range(data.state_statistics, [True] * data.states.shape[1]),
        action_range=_range(data.action_statistics, [q.name != _UNSCALED for q in data.action_quantities]),
    )


def _learner(given: Checkpoint) -> CogAct:
    if not isinstance(given.model, CogAct):
        raise InputError(f"from: only a model of the family cogact can learn, this is {name_of(given.model)}")
    return given.model


def _range(statistics: Statistics, mask: list[bool]) -> Range:
    return Range(tuple(statistics.q01.tolist()), tuple(statistics.q99.tolist()), tuple(mask))


def _model_config(sizes: dict[str, Any], data: Demonstrations, tokenizer: tokenizers.Tokenizer) -> CogActConfig:
    decided = {
        "cameras": len(data.views),
        "vocabulary": tokenizer.get_vocab_size(),
        "pad_id": tokenizer.token_to_id(PAD),
        "bos_id": tokenizer.token_to_id(BOS),
        "cognition_id": tokenizer.token_to_id(COGNITION),
        "state_dim": data.states.shape[1],
        "action_dim": data.actions.shape[1],
    }
    return CogActConfig.from_dict(sizes | decided)
