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
from vla.checkpoints.likeness import looks_like
from vla.checkpoints.native import check_together
from vla.checkpoints.prismatic import RUN, converted, sizes
from vla.checkpoints.weights import check_finite, check_kinds, empty, fill
from vla.images import NAIVE
from vla.models.cogact import FAMILY, CogActConfig, dit

CONFIG, FOLDER = "config.json", "checkpoints"
_PARTS = ("vision_backbone", "projector", "llm_backbone", "action_model")
_AVERAGE = "ema_diffusion"
_RESIZE = {"prism-dinosiglip-224px+7b": NAIVE, "prism-dinosiglip-224px-controlled+7b": NAIVE}  # by base VLM
_HEADS = {f"DiT-{size}": dit(size) for size in "SBL"}  # what a config may call a head
_HEAD_DIM = 64  # of one attention head, but in DiT-S


def recognises(directory: Path) -> bool:
    """Whether there is a folder of .pt files beside a config."""
    return (directory / CONFIG).exists() and any((directory / FOLDER).glob("*.pt"))


def load(directory: Path, choices: Choices, before: BeforeWeights) -> Checkpoint:
    """Read a run directory; the weights stay memory-mapped until they are moved or cast.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    values = read_json(directory / CONFIG)
    base = _base_vlm(values, directory / CONFIG)
    statistics = directory / published.STATISTICS
    key, action = published.choose(read_json(statistics), choices, statistics)
    scale = published.action_range(action, statistics)
    path = weights_file(directory)
    tensors = read_pt(path)
    config = CogActConfig.from_dict(sizes(tensors, RUN, path) | _head_sizes(tensors, path))
    _check_config(values, config, directory / CONFIG)
    processing = published.processing(key, scale, choices, config.image_size, _RESIZE[base])
    tokenizer = published.llama_words(directory)
    check_together(directory, config, processing, tokenizer)
    model = empty(FAMILY, config)
    before(model)
    named = converted(model.state_dict(), tensors, RUN, path)
    check_finite(path, tensors)
    fill(model, named)
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
        holds = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what a damaged archive raises depends on where it is damaged
        raise InputError(f"{path} is damaged or holds no model ({str(error).partition(chr(10))[0]})") from error
    parts = holds.get("model", holds) if isinstance(holds, dict) else {}
    if missing := [part for part in _PARTS if not isinstance(parts.get(part), dict)]:
        seems = "a Prismatic VLM or an OpenVLA in training" if missing == ["action_model"] else _likeness(parts)
        raise InputError(
            f"{path} holds no model with the parts {', '.join(missing)}, so it is no CogACT; it looks like {seems}"
        )
    tensors = {f"{part}.{name}": t for part, named in parts.items() if part != _AVERAGE for name, t in named.items()}
    if strange := [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]:
        raise InputError(f"{path} holds what is no tensor: {strange}")
    check_kinds(path, tensors)
    return tensors


def _likeness(parts: dict[Any, Any]) -> str:
    """What a file without a CogACT's parts reminds of; its tensors may lie in parts, or all in one dictionary."""
    inside = [f"{part}.{name}" for part, named in parts.items() if isinstance(named, dict) for name in named]
    return looks_like([*map(str, parts), *inside])


def _base_vlm(values: dict[str, Any], path: Path) -> str:
    vla = values.get("vla")
    base = vla.get("base_vlm") if isinstance(vla, dict) else None
    if not isinstance(base, str) or base not in _RESIZE:
        raise InputError(f"{path}: vla.base_vlm {base!r} is not one of {sorted(_RESIZE)}")
    return base


def _check_config(values: dict[str, Any], config: CogActConfig, path: Path) -> None:
    """Refuse a run that was trained to do something else than its tensors say, or than is done here.

    Raises:
        InputError: naming what differs.
    """
    head = {name: getattr(config, name) for name in ("head_width", "head_depth", "head_heads")}
    facts = {
        "past_action_window_size": 0,
        "future_action_window_size": config.horizon - 1,
        "action_dim": config.action_dim,
    }
    differing = [
        f"{key} is {values[key]!r}, wanted {made!r}" for key, made in facts.items() if values.get(key, made) != made
    ]
    said = values.get("action_model_type")
    if said is not None and (not isinstance(said, str) or _HEADS.get(said) != head):
        differing.append(f"action_model_type is {said!r}, the tensors say {head}; known: {_HEADS}")
    if differing:
        raise InputError(f"{path} asks for what the weights or this reader do not do: {'; '.join(differing)}")


def _head_sizes(tensors: dict[str, Tensor], source: Path) -> dict[str, Any]:
    """Sizes of the DiT, from the shapes of its tensors."""
    prefix = "action_model.net."
    try:
        tokens, width = tensors[f"{prefix}positional_embedding"].shape  # (1 + horizon, width)
        action_dim = tensors[f"{prefix}x_embedder.linear.weight"].shape[1]  # (width, action_dim)
    except (KeyError, ValueError) as error:
        raise InputError(f"{source}: the action model is no DiT ({error})") from error
    blocks = {name.removeprefix(f"{prefix}blocks.").partition(".")[0] for name in tensors if f"{prefix}blocks." in name}
    depth = 1 + max((int(block) for block in blocks if block.isdigit()), default=-1)
    known = [size for size in _HEADS.values() if (size["head_width"], size["head_depth"]) == (width, depth)]
    if not known and width % _HEAD_DIM:
        raise InputError(f"{source}: the action model is {width} wide, wanted a multiple of {_HEAD_DIM}")
    return {
        "cognition_id": 2,  # Llama's "</s>"
        "head_width": width,
        "head_depth": depth,
        "head_heads": known[0]["head_heads"] if known else width // _HEAD_DIM,
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
