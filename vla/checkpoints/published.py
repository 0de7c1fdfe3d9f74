"""What published CogACT and OpenVLA share around their weights: statistics by dataset, Llama's words, image sizes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from vla.api import Camera, InputError, Quantity
from vla.checkpoints.checkpoint import Choices
from vla.checkpoints.files import chunks, short_hash
from vla.embodiments import ACTIONS, BY_DATASET, Embodiment
from vla.images import STRATEGIES, Resize
from vla.models.trunk import PRISM_7B
from vla.processing import Processing, Range
from vla.tokenizer import BOS, COGNITION, PROMPT, load_tokenizer

TOKENIZER, STATISTICS = "tokenizer.json", "dataset_statistics.json"
IMAGE_MEAN = (0.485, 0.456, 0.406, 0.5, 0.5, 0.5)  # ImageNet's for DINOv2, then SigLIP's
IMAGE_STD = (0.229, 0.224, 0.225, 0.5, 0.5, 0.5)
_GRIPPER_OPENS = 0.5  # commands were 0 or 1 in training
_SAMPLE, _SAMPLES = 2**16, 64  # [bytes] and places of a weight file that go into its hash
_WORDS = {BOS: PRISM_7B["bos_id"], COGNITION: 2, "▁": PRISM_7B["prompt_suffix"][0]}


def choose(statistics: Mapping[str, Any], choices: Choices, source: Path) -> tuple[str, Mapping[str, Any]]:
    """The key and the action statistics of one dataset: the one named, the only one, or the robot's only one.

    Raises:
        InputError: if the key is unknown, or none was given and there are several; the message lists them.
    """
    keys = ", ".join(sorted(statistics))
    fitting = list(statistics) if len(statistics) == 1 else _of_robot(statistics, choices.robot)
    if choices.dataset is None and len(fitting) != 1:
        raise InputError(f"{source} has statistics of several datasets; choose one with dataset=<key>: {keys}")
    key = fitting[0] if choices.dataset is None else choices.dataset
    if key not in statistics:
        raise InputError(f"{source} has no statistics of dataset={key}; allowed: {keys}")
    values = statistics[key]
    if not isinstance(values, Mapping) or not isinstance(values.get("action"), Mapping):
        raise InputError(f"{source}: the statistics of {key} have no `action`")
    return key, values["action"]


def _of_robot(keys: Iterable[str], robot: str | None) -> list[str]:
    """Those datasets that were recorded on this robot; all if it is not said which."""
    return [key for key in keys if robot is None or (key in BY_DATASET and BY_DATASET[key].robot == robot)]


def action_range(action: Mapping[str, Any], source: Path) -> Range:
    """The range that published code un-normalises with; a number without a mask is scaled.

    Raises:
        InputError: if q01 or q99 is missing or wrong.
    """
    missing = [name for name in ("q01", "q99") if not isinstance(action.get(name), list)]
    if missing:
        raise InputError(f"{source}: the action statistics lack {missing}")
    mask = action.get("mask", [True] * len(action["q01"]))
    if not isinstance(mask, list):
        raise InputError(f"{source}: mask must be a list, got {mask!r}")
    try:
        return Range(tuple(action["q01"]), tuple(action["q99"]), tuple(mask))
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def processing(key: str, scale: Range, choices: Choices, image_size: int, strategy: str) -> Processing:
    """What published code does around the model.

    Args:
        key: of the dataset, which says what the robot is.
        scale: of its actions.
        choices: what its user says about a robot that is not known.
        image_size: [px] side of the model's images.
        strategy: Prismatic's `image_resize_strategy`.

    Raises:
        InputError: if the robot is unknown and not described, or the strategy is unknown.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"image_resize_strategy {strategy!r} is not one of {list(STRATEGIES)}")
    robot = _embodiment(key, choices)
    usual = len(scale.q01) == len(ACTIONS)
    actions = ACTIONS if usual else tuple(Quantity(f"action_{i}", "1") for i in range(len(scale.q01)))
    return Processing(
        cameras=(robot.camera,),
        state=(),
        actions=actions,
        period=robot.period,
        prompt=PROMPT,
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
        state_range=Range((), (), ()),
        action_range=scale,
        resize=Resize(image_size, strategy),
        rotation=robot.rotation,
        command_threshold=_GRIPPER_OPENS,
    )


def llama_words(directory: Path) -> tokenizers.Tokenizer:
    """Llama's tokenizer beside the weights.

    Raises:
        InputError: if it is missing, or is another tokenizer.
    """
    path = directory / TOKENIZER
    if not path.is_file():
        raise InputError(f"{path} is missing: copy the {TOKENIZER} of Llama 2 there, OpenVLA's directories have one")
    tokenizer = load_tokenizer(path)
    differing = [
        f"{word!r} is {tokenizer.token_to_id(word)}, wanted {number}"
        for word, number in _WORDS.items()
        if tokenizer.token_to_id(word) != number
    ]
    if differing:
        raise InputError(f"{path} is not Llama's tokenizer: {'; '.join(differing)}")
    return tokenizer


def sampled_hash(files: list[Path], described: list[Path], choices: Choices) -> str:
    """Hash of large files by their size and evenly spread samples, of small ones by all of their bytes.

    Reading all of a 30 GB file would take longer than loading it.

    Raises:
        InputError: if one cannot be read.
    """
    return short_hash(_sampled(files, described, choices))


def _sampled(files: list[Path], described: list[Path], choices: Choices) -> Iterator[bytes]:
    """What is hashed, a little at a time."""
    yield repr(replace(choices, robot=None)).encode()
    for path in described:
        yield from chunks(path)
    for path in files:
        size = path.stat().st_size
        yield f"{path.name} {size}".encode()
        with path.open("rb") as file:
            for place in np.linspace(0, max(size - _SAMPLE, 0), _SAMPLES).astype(int).tolist():
                file.seek(place)
                yield file.read(_SAMPLE)


def _embodiment(key: str, choices: Choices) -> Embodiment:
    """The robot of a dataset, as its user describes it where it is not known."""
    named = (choices.camera, choices.height, choices.width, choices.period)
    if choices.camera is not None and len(choices.camera) != 1:
        raise InputError(f"this model reads one camera, camera= names {len(choices.camera)}: {list(choices.camera)}")
    if key not in BY_DATASET and None in named:
        raise InputError(
            f"nothing is known about the robot of dataset {key!r}; say so with cadence-convert and camera=<name> "
            f"height=<px> width=<px> period=<s>; known: {', '.join(BY_DATASET)}"
        )
    (name,) = choices.camera or (None,)
    known = BY_DATASET.get(key) or Embodiment(Camera(str(name), 1, 1), 1.0)
    camera = Camera(
        name or known.camera.name,
        choices.height or known.camera.height,
        choices.width or known.camera.width,
    )
    return replace(
        known, camera=camera, period=choices.period or known.period, rotation=choices.rotation or known.rotation
    )
