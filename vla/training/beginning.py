"""What a run begins with: a new model that fits the datasets, or a checkpoint that goes on learning."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import tokenizers
from torch import Tensor

from vla.api import Camera, InputError
from vla.checkpoints import native
from vla.checkpoints.checkpoint import Checkpoint
from vla.models.cogact import CogAct, CogActConfig
from vla.models.family import name_of
from vla.models.openvla import OpenVla, OpenVlaConfig
from vla.models.trunk import Trunk
from vla.processing import Processing, Range
from vla.tokenizer import BOS, COGNITION, PAD, build_tokenizer
from vla.training.dataset import Demonstrations, Statistics
from vla.training.keypoints import KeypointHead
from vla.training.mixture import Mixture, statistics
from vla.training.objectives import BLOCK_DIFFUSION, DIFFUSION
from vla.training.speaking import Tokens, check_can_speak, config_for, made, speaking
from vla.training.state import read_state

_IMAGE_MEAN, _IMAGE_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_UNSCALED = "gripper"  # a command that is already -1 or 1
_OF_DIFFUSION = {f.name for f in fields(CogActConfig)} - {f.name for f in fields(OpenVlaConfig)} | {"horizon"}
_VOCABULARY_HEAD, _EMBEDDINGS = "language.lm_head.", "language.llama.embed_tokens."
_PROMPT = "{instruction}"  # a small model need not be told that it is a robot's

Beginning = tuple[Trunk, Mapping[str, Processing], tokenizers.Tokenizer]


def starting(sizes: dict[str, Any], data: Mixture, sentences: Sequence[str], tokens: Tokens | None) -> Beginning:
    """A new model of these sizes.

    Args:
        sizes: of the model; those of the diffusion head mean nothing to a model that says actions in words.
        data: what it will learn from.
        sentences: what its words are found in.
        tokens: how the model says actions in words; None: it has a diffusion head.

    Raises:
        InputError: if the datasets' images are not of the model's size, or a size is wrong.
    """
    processing = {robot: processing_for(parts, sizes["image_size"]) for robot, parts in data.by_robot().items()}
    tokenizer = build_tokenizer(sentences)
    decided = _decided(data, tokenizer)
    if tokens is None:
        return CogAct(CogActConfig.from_dict(sizes | decided)), processing, tokenizer
    cognition = decided.pop("cognition_id")
    trunk = {name: size for name, size in sizes.items() if name not in _OF_DIFFUSION} | decided
    config = config_for(trunk, decided["vocabulary"], (cognition,), tokens)
    return made(config), processing, tokenizer


def begins_at(start: str | None) -> tuple[Path | None, Path | None]:
    """Where the option `from` points.

    Returns:
        the checkpoint's directory; the state of its run, if the option names a run's directory.
    """
    if start is None:
        return None, None
    directory = Path(start)
    state = directory / "state.pt"
    return (directory / "checkpoint", state) if state.exists() else (directory, None)


def restore_learner(given: Checkpoint, state: Path) -> None:
    """Give the model of a run's checkpoint, which holds the average, the weights that the run would have changed next.

    What the run left as it was is in the checkpoint alone.

    Raises:
        InputError: if the run changed other weights, as one with lora does, or its state is damaged.
    """
    had, shipped = _learned(state, "model"), given.model.state_dict()
    if not had.keys() <= shipped.keys():
        raise InputError(
            f"from: the run of {state} changed other weights; name its checkpoint: {state.parent}/checkpoint"
        )
    given.model.load_state_dict(shipped | had)


def restore_keypoints(keypoints: KeypointHead, state: Path) -> None:
    """Give the auxiliary head, which no checkpoint holds, the weights it had at the end of another run.

    Raises:
        InputError: if that run had another one, or its state is damaged.
    """
    try:
        keypoints.load_state_dict(_learned(state, "keypoints"))
    except RuntimeError as error:
        raise InputError(
            f"from: the run of {state} did not learn the key points of these datasets; from={state.parent}/checkpoint "
            "begins with a new auxiliary head"
        ) from error


def _learned(state: Path, module: str) -> dict[str, Tensor]:
    prefix = f"{module}."
    learner = read_state(state)["learner"]
    return {name.removeprefix(prefix): tensor for name, tensor in learner.items() if name.startswith(prefix)}


def origin(directory: Path, speaks: bool) -> Checkpoint:
    """The checkpoint to go on from.

    Args:
        directory: where it is.
        speaks: whether the model is to say actions in words.

    Raises:
        InputError: if it cannot be read, or is of a family that cannot learn here.
    """
    given = native.load(directory)
    if speaks:
        check_can_speak(given.model)
    elif not isinstance(given.model, CogAct):
        raise InputError(f"from: only a model of the family cogact can denoise chunks, this is {name_of(given.model)}")
    return given


def continuing(given: Checkpoint, data: Mixture, tokens: Tokens | None) -> Beginning:
    """The model of a checkpoint, with its own normalisation and words.

    Args:
        given: the checkpoint; one for a nameless robot takes it for the datasets' only one.
        data: what it will learn from.
        tokens: how the model says actions in words, if it is to and does not yet; None: it has a diffusion head.

    Raises:
        InputError: naming what the checkpoint and the datasets do not agree on.
    """
    robots = data.by_robot()
    known = given.robots or (dict.fromkeys(robots, given.processing) if len(robots) == 1 else {})
    if unknown := sorted(set(robots) - set(known)):
        raise InputError(f"from: the checkpoint knows {', '.join(known)}; the datasets are of {', '.join(unknown)}")
    for robot, parts in robots.items():
        had, has = known[robot], processing_for(parts, given.model.config.image_size)
        for name in ("cameras", "state", "actions", "period"):
            mine, theirs = getattr(had, name), getattr(has, name)
            if mine != theirs:
                raise InputError(f"from: the checkpoint has {name} {mine} of {robot}, the dataset {theirs}")
    for name in ("prompt", "lowercase", "image_mean", "image_std"):
        if len({getattr(each, name) for each in known.values()}) > 1:
            raise InputError(f"from: the robots of the checkpoint differ in their {name}; training needs one for all")
    model: Any = given.model if tokens is None else speaking(cast(Trunk, given.model), tokens)
    return model.float().train(), known, given.tokenizer


def untaught(given: Checkpoint, objective: str) -> tuple[str, ...]:
    """First parts of the names of parameters that no training has taught what this objective needs of them.

    All words, if the model did not say actions; word embeddings, if the mask word now stands in what it reads.
    """
    if objective == DIFFUSION:
        return ()
    if not isinstance(given.model, OpenVla):
        return _VOCABULARY_HEAD, _EMBEDDINGS
    options = given.training.get("options")
    learned = options.get("objective") if isinstance(options, dict) else None
    return (_EMBEDDINGS,) if objective == BLOCK_DIFFUSION and learned != BLOCK_DIFFUSION else ()


def processing_for(parts: Sequence[Demonstrations], image_size: int) -> Processing:
    """The processing that fits the datasets of one robot.

    Raises:
        InputError: if their images are not of the model's size.
    """
    first = parts[0]
    for name, view in ((name, view) for part in parts for name, view in part.views.items()):
        if view.shape[1:3] != (image_size, image_size):
            raise InputError(f"camera {name!r} has images of {view.shape[1:3]}, the model wants {image_size} square")
    return Processing(
        cameras=tuple(Camera(name, image_size, image_size) for name in first.views),
        state=first.state_quantities,
        actions=first.action_quantities,
        period=first.period,
        prompt=_PROMPT,
        image_mean=_IMAGE_MEAN,
        image_std=_IMAGE_STD,
        state_range=_range(statistics(parts, "states"), [True] * first.states.shape[1]),
        action_range=_range(statistics(parts, "actions"), [q.name != _UNSCALED for q in first.action_quantities]),
    )


def _range(found: Statistics, mask: list[bool]) -> Range:
    return Range(tuple(found.q01.tolist()), tuple(found.q99.tolist()), tuple(mask))


def _decided(data: Mixture, tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """What data and words decide of a model's config."""
    first = data.parts[0]
    return {
        "cameras": len(first.views),
        "vocabulary": tokenizer.get_vocab_size(),
        "pad_id": tokenizer.token_to_id(PAD),
        "bos_id": tokenizer.token_to_id(BOS),
        "cognition_id": tokenizer.token_to_id(COGNITION),
        "state_dim": first.states.shape[1],
        "action_dim": first.actions.shape[1],
    }
