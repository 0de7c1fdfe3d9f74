"""The native checkpoint: a directory of `config.json`, `model.safetensors`, `processing.json` and `tokenizer.json`.

Loading is strict: whatever is missing, unexpected, wrongly shaped or unknown is an error that names it. The model class
comes from a fixed table by `model_type`; nothing in a checkpoint is ever imported or executed.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vla.api import InputError
from vla.models.cogact import CogAct, CogActConfig
from vla.processing import Processing
from vla.tokenizer import BOS, COGNITION, PAD, load_tokenizer

CONFIG, WEIGHTS, PROCESSING, TOKENIZER = "config.json", "model.safetensors", "processing.json", "tokenizer.json"
_MODELS = {"cogact": (CogAct, CogActConfig)}


@dataclass(frozen=True)
class Checkpoint:
    """A model and what belongs to it.

    Attributes:
        model: float32, in evaluation mode.
        processing: units and normalisation.
        tokenizer: of the instructions.
        training: the options that made it.
    """

    model: CogAct
    processing: Processing
    tokenizer: tokenizers.Tokenizer
    training: dict[str, Any]


def save(
    directory: Path,
    model: CogAct,
    processing: Processing,
    tokenizer: tokenizers.Tokenizer,
    training: dict[str, Any],
) -> None:
    """Write a checkpoint; an existing one is replaced only when the new one is complete."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as beside:
        complete, replaced = Path(beside) / "complete", Path(beside) / "replaced"
        complete.mkdir()
        config = {"model_type": "cogact", "architecture": model.config.to_dict(), "training": training}
        _write_json(complete / CONFIG, config)
        _write_json(complete / PROCESSING, processing.to_dict())
        tokenizer.save(str(complete / TOKENIZER))
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, complete / WEIGHTS)
        shutil.copymode(complete / CONFIG, complete / WEIGHTS)  # safetensors lets only the owner read
        if directory.exists():
            os.replace(directory, replaced)
        os.replace(complete, directory)


def load(directory: Path, weights: bool = True) -> Checkpoint:
    """Read a checkpoint.

    Args:
        directory: as `save` wrote it.
        weights: False leaves the model as `torch.manual_seed(0)` initialises it, and reads no weights.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    if not directory.is_dir():
        raise InputError(f"there is no checkpoint directory {directory}; give checkpoint=<directory with {CONFIG}>")
    model_class, architecture, training = _read_config(directory / CONFIG)
    processing = _read_processing(directory / PROCESSING)
    tokenizer = load_tokenizer(directory / TOKENIZER)
    _check_together(directory, architecture, processing, tokenizer)
    tensors = _read_weights(directory / WEIGHTS, model_class, architecture) if weights else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(architecture)
    if weights:
        model.load_state_dict(tensors)
    return Checkpoint(model.eval(), processing, tokenizer, training)


def weights_hash(directory: Path) -> str:
    """Twelve hexadecimal digits that change with the weights, the architecture or the processing.

    Raises:
        InputError: if a file is missing.
    """
    digest = hashlib.sha256()
    for name in (WEIGHTS, PROCESSING, TOKENIZER):
        digest.update(_read(directory / name))
    digest.update(json.dumps(_read_json(directory / CONFIG).get("architecture"), sort_keys=True).encode())
    return digest.hexdigest()[:12]


def _read_config(path: Path) -> tuple[type[CogAct], CogActConfig, dict[str, Any]]:
    config = _read_json(path)
    expected = {"model_type", "architecture", "training"}
    if set(config) != expected:
        raise InputError(f"{path} has the keys {sorted(config)}, it must have {sorted(expected)}")
    for key in ("architecture", "training"):
        if not isinstance(config[key], dict):
            raise InputError(f"{path}: {key} must be an object, got {config[key]!r}")
    if config["model_type"] not in _MODELS:
        raise InputError(f"{path}: model_type {config['model_type']!r} is not one of {sorted(_MODELS)}")
    model_class, config_class = _MODELS[config["model_type"]]
    try:
        return model_class, config_class.from_dict(config["architecture"]), config["training"]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_processing(path: Path) -> Processing:
    values = _read_json(path)
    try:
        return Processing.from_dict(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _check_together(
    directory: Path, architecture: CogActConfig, processing: Processing, tokenizer: tokenizers.Tokenizer
) -> None:
    """Refuse files that do not describe the same model."""
    sizes = {(camera.height, camera.width) for camera in processing.cameras}
    facts = (
        ("cameras", architecture.cameras, len(processing.cameras)),
        ("state numbers", architecture.state_dim, len(processing.state)),
        ("action numbers", architecture.action_dim, len(processing.actions)),
        ("image sizes", {(architecture.image_size,) * 2}, sizes),
        ("words", architecture.vocabulary, tokenizer.get_vocab_size()),
        ("padding word", architecture.pad_id, tokenizer.token_to_id(PAD)),
        ("first word", architecture.bos_id, tokenizer.token_to_id(BOS)),
        ("cognition word", architecture.cognition_id, tokenizer.token_to_id(COGNITION)),
    )
    differing = [f"{what}: {ours} and {theirs}" for what, ours, theirs in facts if ours != theirs]
    if differing:
        names = f"{CONFIG} and {PROCESSING} or {TOKENIZER}"
        raise InputError(f"{names} in {directory} do not belong together: {'; '.join(differing)}")


def _read_weights(path: Path, model_class: type[CogAct], architecture: CogActConfig) -> dict[str, Tensor]:
    """All tensors, after checking their names, shapes and kinds against a model that takes no memory yet."""
    with torch.device("meta"):
        wanted = model_class(architecture).state_dict()
    tensors = _read_tensors(path)
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    different = [
        f"{name} is {_kind(tensors[name])}, wanted {_kind(wanted[name])}"
        for name in sorted(wanted.keys() & tensors.keys())
        if _kind(tensors[name]) != _kind(wanted[name])
    ]
    if missing or unexpected or different:
        raise InputError(
            f"{path} does not fit {CONFIG}: missing {missing}; unexpected {unexpected}; different {different}"
        )
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{path} holds values that are not finite in {broken}; copy or train the checkpoint again")
    return tensors


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path} is missing; the checkpoint is incomplete, copy or train it again")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); copy or train the checkpoint again") from error


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read(path))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold one JSON object, it holds a {type(values).__name__}")
    return values


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} of the checkpoint: {error.strerror}") from error
