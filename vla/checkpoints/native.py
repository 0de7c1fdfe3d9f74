"""The native checkpoint: a directory of `config.json`, `model.safetensors`, `processing.json` and `tokenizer.json`.

A model that serves several robots has a `processing.json` of the form `{"robots": {<name>: <processing>, …}}`.

Loading is strict: whatever is missing, unexpected, wrongly shaped or unknown is an error that names it. The model class
is found by `model_type` among the families in `vla/models/`; nothing in a checkpoint is ever imported or executed.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from torch import Tensor

from vla.api import InputError
from vla.checkpoints.checkpoint import BeforeWeights, Checkpoint, Choices, Layout, nothing_before
from vla.checkpoints.files import chunks, read_json, read_tensors, write_json
from vla.checkpoints.likeness import looks_like
from vla.checkpoints.weights import FLOATS, check_finite, dtype_of, empty, fill, mismatches
from vla.models import family as families
from vla.models.config import ModelConfig
from vla.models.family import ActionModel, Family
from vla.processing import Processing
from vla.tokenizer import BOS, COGNITION, PAD, load_tokenizer

CONFIG, WEIGHTS, PROCESSING, TOKENIZER = "config.json", "model.safetensors", "processing.json", "tokenizer.json"
_ROBOTS, _ONLY = "robots", ""
_KEYS = {"model_type", "architecture", "training"}
_DTYPE = "dtype"  # in the config if the weights are not in float32; a diffusion head's always are
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS}


def save(
    directory: Path,
    model: ActionModel,
    processing: Processing | Mapping[str, Processing],
    tokenizer: tokenizers.Tokenizer,
    training: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint of one robot or of several; one that exists is replaced only when the new one is complete."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as beside:
        complete, replaced = Path(beside) / "complete", Path(beside) / "replaced"
        complete.mkdir()
        write_json(complete / CONFIG, _config(model, training, dtype))
        write_json(complete / PROCESSING, _processing_values(processing))
        tokenizer.save(str(complete / TOKENIZER))
        tensors = {name: t.to(dtype_of(name, dtype)).contiguous() for name, t in model.state_dict().items()}
        save_file(tensors, complete / WEIGHTS)
        shutil.copymode(complete / CONFIG, complete / WEIGHTS)  # safetensors lets only the owner read
        if directory.exists():
            os.replace(directory, replaced)
        os.replace(complete, directory)


def load(
    directory: Path, weights: bool = True, before: BeforeWeights = nothing_before, robot: str | None = None
) -> Checkpoint:
    """Read a checkpoint; the weights stay memory-mapped until they are moved or cast.

    Args:
        directory: as `save` wrote it.
        weights: False leaves the model as `torch.manual_seed(0)` initialises it, and reads no weights.
        before: called with the empty model before any weights take memory.
        robot: whose processing to use if there are several; None: of the first.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    if not directory.is_dir():
        raise InputError(f"there is no checkpoint directory {directory}; give checkpoint=<directory with {CONFIG}>")
    found, architecture, dtype, training = _read_config(directory / CONFIG)
    robots = _read_processing(directory / PROCESSING)
    processing = _chosen(robots, robot, directory / PROCESSING)
    tokenizer = load_tokenizer(directory / TOKENIZER)
    for each in robots.values():
        check_together(directory, architecture, each, tokenizer)
    model = empty(found, architecture)
    before(model)
    if weights:
        model = fill(model, _read_weights(directory / WEIGHTS, model, dtype))
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = found.model_class(architecture).eval()
    return Checkpoint(model, processing, tokenizer, training, robots if _ONLY not in robots else {})


def weights_hash(directory: Path) -> str:
    """Twelve hexadecimal digits that change with the weights, the architecture or the processing.

    Raises:
        InputError: if a file is missing.
    """
    digest = hashlib.sha256()
    for name in (WEIGHTS, PROCESSING, TOKENIZER):
        for chunk in chunks(directory / name):
            digest.update(chunk)
    digest.update(json.dumps(read_json(directory / CONFIG).get("architecture"), sort_keys=True).encode())
    return digest.hexdigest()[:12]


def check_together(directory: Path, architecture: Any, processing: Processing, tokenizer: tokenizers.Tokenizer) -> None:
    """Refuse parts of a checkpoint that do not describe the same model.

    Raises:
        InputError: naming what differs.
    """
    if processing.resize is None:
        sizes = {(camera.height, camera.width) for camera in processing.cameras}
    else:
        sizes = {(processing.resize.size,) * 2}
    facts = [
        ("cameras", architecture.cameras, len(processing.cameras)),
        ("state numbers", architecture.state_dim, len(processing.state)),
        ("action numbers", architecture.action_dim, len(processing.actions)),
        ("image sizes", {(architecture.image_size,) * 2}, sizes),
        ("image channels", architecture.image_channels, len(processing.image_mean)),
        *_word_facts(architecture, tokenizer),
    ]
    differing = [f"{what}: {ours} and {theirs}" for what, ours, theirs in facts if ours != theirs]
    if differing:
        names = f"{CONFIG} and {PROCESSING} or {TOKENIZER}"
        raise InputError(f"{names} in {directory} do not belong together: {'; '.join(differing)}")


def _word_facts(architecture: Any, tokenizer: tokenizers.Tokenizer) -> list[tuple[str, Any, Any]]:
    """Facts that words decide; embedding tables may be padded with rows for no word up to a multiple of 64."""
    if hasattr(architecture, "word_facts"):
        return architecture.word_facts(tokenizer)
    words, rows = tokenizer.get_vocab_size(), getattr(architecture, "text_words", None) or architecture.vocabulary
    padded = rows % 64 == 0 and words <= rows <= words + 64
    facts = [("words", rows, rows if padded else words)]
    padding = tokenizer.token_to_id(PAD)
    if padding is not None:
        facts.append(("padding word", architecture.pad_id, padding))
    facts.append(("first word", architecture.bos_id, tokenizer.token_to_id(BOS)))
    if hasattr(architecture, "cognition_id"):
        facts.append(("cognition word", architecture.cognition_id, tokenizer.token_to_id(COGNITION)))
    return facts


def _config(model: ActionModel, training: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    config = {"model_type": families.name_of(model), "architecture": model.config.to_dict(), "training": training}
    if dtype != torch.float32:
        config[_DTYPE] = str(dtype).removeprefix("torch.")
    return config


def _read_config(path: Path) -> tuple[Family, ModelConfig, torch.dtype, dict[str, Any]]:
    config = read_json(path)
    if not _KEYS <= set(config) <= _KEYS | {_DTYPE}:
        raise InputError(f"{path} has the keys {sorted(config)}, it must have {sorted(_KEYS)}")
    for key in ("architecture", "training"):
        if not isinstance(config[key], dict):
            raise InputError(f"{path}: {key} must be an object, got {config[key]!r}")
    dtype = config.get(_DTYPE, "float32")
    if dtype not in _DTYPES:
        raise InputError(f"{path}: {_DTYPE} {dtype!r} is not one of {sorted(_DTYPES)}")
    try:
        family = families.find(config["model_type"])
        architecture = family.config_class.from_dict(config["architecture"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return family, architecture, _DTYPES[dtype], config["training"]


def _processing_values(processing: Processing | Mapping[str, Processing]) -> dict[str, Any]:
    if isinstance(processing, Processing):
        return processing.to_dict()
    return {_ROBOTS: {robot: each.to_dict() for robot, each in processing.items()}}


def _read_processing(path: Path) -> dict[str, Processing]:
    """Robot -> processing; `_ONLY` is the name of a robot without one."""
    values = read_json(path)
    by_robot = values[_ROBOTS] if set(values) == {_ROBOTS} else {_ONLY: values}
    if not isinstance(by_robot, dict) or not by_robot:
        raise InputError(f"{path}: {_ROBOTS} must have a processing for each robot, got {by_robot!r:.80}")
    try:
        return {robot: Processing.from_dict(each) for robot, each in by_robot.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _chosen(robots: Mapping[str, Processing], robot: str | None, path: Path) -> Processing:
    if robot is None or _ONLY in robots:
        return next(iter(robots.values()))
    if robot not in robots:
        raise InputError(f"{path} knows the robots {', '.join(robots)}, not {robot}; choose one with dataset=<robot>")
    return robots[robot]


def _read_weights(path: Path, model: ActionModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors, memory-mapped, after checking their names, shapes, kinds and values."""
    wanted = {name: tensor.to(dtype_of(name, dtype)) for name, tensor in model.state_dict().items()}
    tensors = read_tensors(path)
    if differing := mismatches(wanted, tensors):
        foreign = wanted.keys() - tensors.keys() and tensors.keys() - wanted.keys()
        seems = f"; it looks like {looks_like(tensors)}" if foreign else ""
        raise InputError(f"{path} does not fit {CONFIG}: {differing}{seems}")
    check_finite(path, tensors)
    return tensors


def _recognises(directory: Path) -> bool:
    return (directory / PROCESSING).exists()


def _load(directory: Path, choices: Choices, before: BeforeWeights) -> Checkpoint:
    free = Choices(choices.dataset, choices.robot)
    if choices != free:
        given = [name for name, value in vars(choices).items() if value != getattr(free, name)]
        raise InputError(f"{directory} is a checkpoint of our own and says what its actions mean; leave out {given}")
    found = load(directory, before=before, robot=choices.dataset or choices.robot)
    if choices.dataset is not None and not found.robots:
        raise InputError(f"{directory} is a checkpoint of our own for one robot; leave out dataset={choices.dataset}")
    return found


LAYOUT = Layout(
    looks_like=f"our own has {CONFIG}, {WEIGHTS}, {PROCESSING} and {TOKENIZER}",
    recognises=_recognises,
    load=_load,
    weights_hash=lambda directory, choices: weights_hash(directory),
)
