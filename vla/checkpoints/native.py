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
from vla.tokenizer import load_tokenizer

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
    partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        config = {"model_type": "cogact", "architecture": model.config.to_dict(), "training": training}
        _write_json(partial / CONFIG, config)
        _write_json(partial / PROCESSING, processing.to_dict())
        tokenizer.save(str(partial / TOKENIZER))
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, partial / WEIGHTS)
        partial.chmod(0o755)
        shutil.rmtree(directory, ignore_errors=True)
        os.replace(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(directory: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    if not directory.is_dir():
        raise InputError(f"there is no checkpoint directory {directory}; give checkpoint=<directory with {CONFIG}>")
    config = _read_json(directory / CONFIG)
    expected = {"model_type", "architecture", "training"}
    if set(config) != expected:
        raise InputError(f"{directory / CONFIG} has the keys {sorted(config)}, it must have {sorted(expected)}")
    if config["model_type"] not in _MODELS:
        raise InputError(f"{directory / CONFIG}: model_type {config['model_type']!r} is not one of {sorted(_MODELS)}")
    model_class, config_class = _MODELS[config["model_type"]]
    model = model_class(config_class.from_dict(config["architecture"]))
    _fill(model, read_tensors(directory / WEIGHTS), directory / WEIGHTS)
    processing = Processing.from_dict(_read_json(directory / PROCESSING))
    tokenizer = load_tokenizer(directory / TOKENIZER)
    return Checkpoint(model.eval(), processing, tokenizer, config["training"])


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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name.

    Raises:
        InputError: if the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; the checkpoint is incomplete, copy or train it again")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); copy or train the checkpoint again") from error


def _fill(model: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)}, wanted {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if tensors[name].shape != wanted[name].shape
    ]
    if missing or unexpected or misshapen:
        raise InputError(f"{path} does not fit its config: missing {missing}, unexpected {unexpected}, {misshapen}")
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{path} holds values that are not finite in {broken}")
    model.load_state_dict(tensors)


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
