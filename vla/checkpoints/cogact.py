"""CogACT's run directory: `config.json`, `dataset_statistics.json`, `checkpoints/<one>.pt`; Llama's `tokenizer.json`.

The `.pt` file holds `{"model": {"vision_backbone", "projector", "llm_backbone", "action_model"}}`, each a dictionary of
tensors (microsoft/CogACT `training/strategies/fsdp.py`). `ema_diffusion`, if there, is left out as in its own loader.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla.api import InputError
from vla.checkpoints import published
from vla.checkpoints.checkpoint import BeforeWeights, Checkpoint, Choices, Layout
from vla.checkpoints.files import read_json
from vla.checkpoints.native import check_together
from vla.checkpoints.prismatic import RUN, converted, looks_like, sizes
from vla.checkpoints.weights import check_kinds, empty, fill
from vla.images import NAIVE
from vla.models.cogact import FAMILY, CogActConfig

CONFIG, FOLDER = "config.json", "checkpoints"
_PARTS = ("vision_backbone", "projector", "llm_backbone", "action_model")
_AVERAGE = "ema_diffusion"
_RESIZE = {"prism-dinosiglip-224px+7b": NAIVE, "prism-dinosiglip-224px-controlled+7b": NAIVE}  # by base VLM
_NARROW_HEADS = {384: 4}  # DiT-S; the heads of the others are 64 wide


def recognises(directory: Path) -> bool:
    """Whether there is a folder of .pt files beside a config."""
    return (directory / CONFIG).exists() and any((directory / FOLDER).glob("*.pt"))


def load(directory: Path, choices: Choices, before: BeforeWeights) -> Checkpoint:
    """Read a run directory; the weights stay memory-mapped until they are moved or cast.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    base = _base_vlm(directory / CONFIG)
    statistics = directory / published.STATISTICS
    key, action = published.choose(read_json(statistics), choices, statistics)
    scale = published.action_range(action, statistics)
    path = weights_file(directory)
    tensors = read_pt(path)
    config = CogActConfig.from_dict(sizes(tensors, RUN, path) | _head_sizes(tensors, path))
    processing = published.processing(key, scale, choices, config.image_size, _RESIZE[base])
    tokenizer = published.llama_words(directory)
    check_together(directory, config, processing, tokenizer)
    model = empty(FAMILY, config)
    before(model)
    fill(model, converted(model.state_dict(), tensors, RUN, path))
    return Checkpoint(model, processing, tokenizer, {"published": {"base_vlm": base, "dataset": key}})


def weights_file(directory: Path) -> Path:
    """The one .pt file.

    Raises:
        InputError: if there are several.
    """
    files = sorted((directory / FOLDER).glob("*.pt"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files)
        raise InputError(f"{directory / FOLDER} must hold one .pt file, it holds {names}; move the others away")
    return files[0]


def read_pt(path: Path) -> dict[str, Tensor]:
    """Tensors by `<part>.<name>`, memory-mapped; nothing but tensors is ever unpacked.

    Raises:
        InputError: if the file is damaged, of an old kind, or without a part.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is damaged or older than torch 1.6; copy it again, or save it again with torch.save")
    try:
        parts = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["model"]
        tensors = {
            f"{part}.{name}": t for part, named in parts.items() if part != _AVERAGE for name, t in named.items()
        }
        check_kinds(path, tensors)
    except InputError:
        raise
    except Exception as error:  # what a damaged archive raises depends on where it is damaged
        raise InputError(f"{path} is damaged or holds no model ({str(error).partition(chr(10))[0]})") from error
    if missing := [part for part in _PARTS if part not in parts]:
        seems = "a Prismatic VLM or an OpenVLA in training" if missing == ["action_model"] else looks_like(tensors)
        raise InputError(f"{path} has no {', '.join(missing)}, it is no CogACT; it looks like {seems}")
    return tensors


def _base_vlm(path: Path) -> str:
    vla = read_json(path).get("vla")
    base = vla.get("base_vlm") if isinstance(vla, dict) else None
    if base not in _RESIZE:
        raise InputError(f"{path}: vla.base_vlm {base!r} is not one of {sorted(_RESIZE)}")
    return base


def _head_sizes(tensors: dict[str, Tensor], source: Path) -> dict[str, Any]:
    """Sizes of the DiT, from the shapes of its tensors."""
    prefix = "action_model.net."
    try:
        tokens, width = tensors[f"{prefix}positional_embedding"].shape  # (1 + horizon, width)
        action_dim = tensors[f"{prefix}x_embedder.linear.weight"].shape[1]  # (width, action_dim)
    except (KeyError, ValueError) as error:
        raise InputError(f"{source}: the action model is no DiT ({error})") from error
    blocks = {name.removeprefix(f"{prefix}blocks.").partition(".")[0] for name in tensors if f"{prefix}blocks." in name}
    return {
        "cognition_id": 2,  # Llama's "</s>"
        "head_width": width,
        "head_depth": 1 + max(map(int, blocks), default=-1),
        "head_heads": _NARROW_HEADS.get(width, width // 64),
        "horizon": tokens - 1,
        "action_dim": action_dim,
        "train_steps": 100,
        "prediction": "epsilon",
        "cameras": 1,
    }


def _weights_hash(directory: Path, choices: Choices) -> str:
    described = [directory / CONFIG, directory / published.STATISTICS, directory / published.TOKENIZER]
    return published.sampled_hash([weights_file(directory)], described, choices)


LAYOUT = Layout(
    looks_like=f"CogACT's has {CONFIG}, {published.STATISTICS}, {FOLDER}/<one>.pt and {published.TOKENIZER}",
    recognises=recognises,
    load=load,
    weights_hash=_weights_hash,
)
