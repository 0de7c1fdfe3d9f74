"""Tensors of a published pi0 under our names: LeRobot's and transformers' checkpoints go back to openpi's.

Sources: openpi `models_pytorch/`, LeRobot `policies/pi0/modeling_pi0.py`, transformers `conversion_mapping.py`.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vla.api import InputError
from vla.checkpoints.likeness import looks_like
from vla.checkpoints.weights import kind
from vla.models.pi0_config import Pi0Config

_WORDS, _UNREAD = "body.vlm.language_model.embed_tokens.weight", "body.dit.embed_tokens.weight"
_TO_OURS = [  # each is tried in turn, on what the one before made
    (r"^model\.(?=paligemma_with_expert\.|action_|state_proj)", ""),  # LeRobot's policy around the model
    (r"^paligemma_with_expert\.paligemma\.lm_head\.", "body.vlm.language_model.embed_tokens."),  # one table for both
    (r"^paligemma_with_expert\.paligemma\.model\.", "body.vlm."),
    (r"^paligemma_with_expert\.gemma_expert\.lm_head\.", "body.dit.embed_tokens."),
    (r"^paligemma_with_expert\.gemma_expert\.model\.", "body.dit."),
    (r"^body\.vlm\.language_model\.model\.", "body.vlm.language_model."),
    (r"^body\.vlm\.vision_tower\.vision_model\.", "body.vlm.vision_tower."),  # SigLIP before transformers 5
    (r"^(state_proj|action_in_proj|action_time_mlp_in|action_time_mlp_out)\.", r"head.embed.\1."),
    (r"^action_out_proj\.", "head.out."),
]
_TO_PUBLISHED = [
    (r"^body\.vlm\.", "paligemma_with_expert.paligemma.model."),
    (r"^body\.dit\.", "paligemma_with_expert.gemma_expert.model."),
    (r"^head\.embed\.", ""),
    (r"^head\.out\.", "action_out_proj."),
]


def ours(published: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """The same tensors under our names, without the expert's word embeddings, which nothing reads.

    Raises:
        InputError: if two tensors that are one, such as tied embeddings, differ.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in published.items():
        our_name = _renamed(name, _TO_OURS)
        if our_name in named and not torch.equal(named[our_name], tensor):
            raise InputError(f"{source} has {name} twice, under two names and with different values")
        named[our_name] = tensor
    named.pop(_UNREAD, None)
    return named


def fitting(wanted: Mapping[str, Tensor], named: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """The tensors that a model takes.

    Args:
        wanted: our name -> a tensor of our shape, which may be empty.
        named: as `ours` gave them.
        source: for messages.

    Raises:
        InputError: listing every tensor that is missing, unexpected or of a wrong shape, as published code calls it.
    """
    missing = [_published(name) for name in sorted(wanted.keys() - named.keys())]
    unexpected = [_published(name) for name in sorted(named.keys() - wanted.keys())]
    different = [
        f"{_published(name)} is {kind(named[name])}, wanted {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & named.keys())
        if named[name].shape != wanted[name].shape
    ]
    if missing or unexpected or different:
        family = looks_like(map(_published, named))
        seems = f"; it looks like {family}" if missing and unexpected and family != "pi0" else ""
        raise InputError(f"{source}: missing {missing}; unexpected {unexpected}; different {different}{seems}")
    return dict(named)


def sizes(named: Mapping[str, Tensor], source: object) -> dict[str, int]:
    """What the shapes say of a `Pi0Config`; the widths of a head are the published ones.

    Raises:
        InputError: naming a tensor that says a size and is missing or has another number of dimensions.
    """
    head_dim, vision_head = Pi0Config.head_dim, Pi0Config.vision_width // Pi0Config.vision_heads

    def shape(name: str, dimensions: int = 2) -> tuple[int, ...]:
        found = tuple(named[name].shape) if name in named else None
        if found is None or len(found) != dimensions:
            seems = looks_like(map(_published, named))
            raise InputError(
                f"{source}: {_published(name)}, which says a size, must have {dimensions} dimensions, "
                f"its shape is {found}; it looks like {seems}"
            )
        return found

    vision, text, expert = "body.vlm.vision_tower", "body.vlm.language_model", "body.dit"
    patch = shape(f"{vision}.embeddings.patch_embedding.weight", 4)  # (width, 3, patch, patch)
    patches = shape(f"{vision}.embeddings.position_embedding.weight")[0]
    vocabulary, language_width = shape(_WORDS)
    return {
        "patch_size": patch[2],
        "image_size": round(patches**0.5) * patch[2],
        "vision_width": patch[0],
        "vision_depth": _depth(named, f"{vision}.encoder.layers"),
        "vision_heads": max(1, patch[0] // vision_head),
        "vision_mlp_width": shape(f"{vision}.encoder.layers.0.mlp.fc1.weight")[0],
        "language_width": language_width,
        "language_heads": shape(f"{text}.layers.0.self_attn.q_proj.weight")[0] // head_dim,
        "language_mlp_width": shape(f"{text}.layers.0.mlp.gate_proj.weight")[0],
        "expert_width": shape(f"{expert}.layers.0.mlp.gate_proj.weight")[1],
        "expert_heads": shape(f"{expert}.layers.0.self_attn.q_proj.weight")[0] // head_dim,
        "expert_mlp_width": shape(f"{expert}.layers.0.mlp.gate_proj.weight")[0],
        "depth": _depth(named, f"{text}.layers"),
        "kv_heads": shape(f"{text}.layers.0.self_attn.k_proj.weight")[0] // head_dim,
        "head_dim": head_dim,
        "vocabulary": vocabulary,
        "state_width": shape("head.embed.state_proj.weight")[1],
        "action_width": shape("head.out.weight")[0],
    }


def _depth(named: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are."""
    numbers = {name[len(prefix) + 1 :].partition(".")[0] for name in named if name.startswith(f"{prefix}.")}
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def _published(name: str) -> str:
    return _renamed(name, _TO_PUBLISHED)


def _renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
