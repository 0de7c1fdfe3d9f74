"""The trunk of published CogACT and OpenVLA: tensors under timm's names, whose shapes say the sizes.

Names and layouts: microsoft/CogACT `vla/`, openvla/openvla `prismatic/` and `vla-scripts/extern/`, and timm's
`VisionTransformer`. Both towers are timm's, so attention has one fused projection, and SigLIP its pooling head.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vla.api import InputError
from vla.checkpoints.likeness import looks_like
from vla.checkpoints.weights import kind
from vla.models.trunk import PRISM_7B

_DINO_HEAD, _SIGLIP_HEAD, _LANGUAGE_HEAD = 64, 72, 128  # features of one attention head, at every published size
_DERIVED = re.compile(r"rotary_emb\.inv_freq$")  # a buffer that older versions of transformers saved

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Names:
    """Where one layout keeps the parts of the trunk.

    Attributes:
        dino, siglip, language: prefixes.
        layer_scale: DINOv2's name for the factors of a residual branch.
        projector: prefixes of its layers 0, 2 and 4.
    """

    dino: str
    siglip: str
    layer_scale: str
    projector: tuple[str, str, str]
    language: str


RUN = Names(
    dino="vision_backbone.dino_featurizer",
    siglip="vision_backbone.siglip_featurizer",
    layer_scale="gamma",
    projector=("projector.projector.0", "projector.projector.2", "projector.projector.4"),
    language="llm_backbone.llm",
)
HUGGING_FACE = Names(
    dino="vision_backbone.featurizer",
    siglip="vision_backbone.fused_featurizer",
    layer_scale="scale_factor",
    projector=("projector.fc1", "projector.fc2", "projector.fc3"),
    language="language_model",
)


@dataclass(frozen=True)
class Origin:
    """What one of our tensors is made of: published tensors by name, and how."""

    names: tuple[str, ...]
    make: Callable[..., Tensor]


def sizes(tensors: Tensors, names: Names, source: object, language_heads: int | None = None) -> dict[str, Any]:
    """The trunk's config, from the shapes of its tensors, which do not say how many heads the language model has.

    Args:
        tensors: by published name.
        names: of the layout.
        source: for messages.
        language_heads: of the language model; None: as wide as Llama's.

    Raises:
        InputError: naming the tensors that say a size and are missing, or have a size of no published kind.
    """
    shape = _Shapes(tensors, source)
    dino_patch = shape(f"{names.dino}.patch_embed.proj.weight", 4)  # (width, 3, patch, patch)
    siglip_mlp = shape(f"{names.siglip}.blocks.0.mlp.fc1.weight", 2)  # (mlp_width, width)
    words = shape(f"{names.language}.model.embed_tokens.weight", 2)  # (vocabulary, width)
    patches = shape(f"{names.dino}.pos_embed", 3)[1]
    return PRISM_7B | {
        "patch_size": dino_patch[2],
        "image_size": round(patches**0.5) * dino_patch[2],
        "vision_width": dino_patch[0],
        "vision_depth": shape.depth(f"{names.dino}.blocks"),
        "vision_heads": shape.heads("DINOv2", dino_patch[0], _DINO_HEAD),
        "registers": shape(f"{names.dino}.reg_token", 3)[1],
        "siglip_width": siglip_mlp[1],
        "siglip_depth": shape.depth(f"{names.siglip}.blocks"),
        "siglip_heads": shape.heads("SigLIP", siglip_mlp[1], _SIGLIP_HEAD),
        "siglip_mlp_width": siglip_mlp[0],
        "language_width": words[1],
        "language_depth": shape.depth(f"{names.language}.model.layers"),
        "language_heads": language_heads or shape.heads("the language model", words[1], _LANGUAGE_HEAD),
        "language_mlp_width": shape(f"{names.language}.model.layers.0.mlp.gate_proj.weight", 2)[0],
        "vocabulary": words[0],
    }


def converted(wanted: Tensors, published: Tensors, names: Names, source: object) -> dict[str, Tensor]:
    """Published tensors under our names; all but a few small ones are views of the published ones.

    Args:
        wanted: our name -> a tensor of our shape, which may be empty.
        published: published name -> tensor.
        names: of the layout.
        source: for messages.

    Raises:
        InputError: listing every published tensor that is missing, unexpected or of a wrong shape.
    """
    there = {name: tensor for name, tensor in published.items() if not _DERIVED.search(name)}
    origins = {name: origin(name, names) for name in wanted}
    needed = {name for each in origins.values() for name in each.names}
    missing, unexpected = sorted(needed - there.keys()), sorted(there.keys() - needed)
    made: dict[str, Tensor] = {}
    different: list[str] = []
    for name, each in origins.items():
        parts = [there[part] for part in each.names if part in there]
        if len(parts) < len(each.names):
            continue
        tensor = _made(each, parts, wanted[name], _common_dtype(there))
        if tensor is None or tensor.shape != wanted[name].shape:
            shapes = ", ".join(f"{part} is {kind(there[part])}" for part in each.names)
            different.append(f"{shapes}, which does not make {name} {tuple(wanted[name].shape)}")
        else:
            made[name] = tensor
    if missing or unexpected or different:
        seems = f"; it looks like {looks_like(there)}" if missing and unexpected else ""
        raise InputError(f"{source}: missing {missing}; unexpected {unexpected}; different {different}{seems}")
    return made


def origin(name: str, names: Names) -> Origin:
    """Where our tensor of this name comes from; a name that no rule knows is the same in both."""
    for pattern, published, make in _rules(names):
        if match := pattern.fullmatch(name):
            return Origin(tuple(match.expand(each) for each in published), make)
    return Origin((name,), _same)


def _same(published: Tensor) -> Tensor:
    return published


def _third(index: int) -> Callable[[Tensor], Tensor]:
    """Query, key or value out of a fused projection."""
    return lambda fused: fused.unflatten(0, (3, -1))[index]


def _joined(query: Tensor, key_value: Tensor) -> Tensor:
    return torch.cat([query, key_value])


def _with_class_row(positions: Tensor) -> Tensor:
    """(1, patches, width) -> (1, 1 + patches, width): timm's class token has its position already added."""
    return torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)


@cache
def _rules(names: Names) -> list[tuple[re.Pattern[str], tuple[str, ...], Callable[..., Tensor]]]:
    """Our names as patterns, the published names they are made of, and how."""
    dino, siglip = rf"{names.dino}.", rf"{names.siglip}."
    block, pool = rf"{siglip}blocks.\1.", rf"{siglip}attn_pool."
    rules: list[tuple[str, tuple[str, ...], Callable[..., Tensor]]] = [
        (r"vision\.dino\.embeddings\.mask_token", (), _same),  # of DINOv2's own training, never used again
        (r"vision\.dino\.embeddings\.cls_token", (f"{dino}cls_token",), _same),
        (r"vision\.dino\.embeddings\.register_tokens", (f"{dino}reg_token",), _same),
        (r"vision\.dino\.embeddings\.position_embeddings", (f"{dino}pos_embed",), _with_class_row),
        (r"vision\.dino\.embeddings\.patch_embeddings\.projection\.(\w+)", (rf"{dino}patch_embed.proj.\1",), _same),
        (r"vision\.dino\.encoder\.layer\.(\d+)\.attention\.o_proj\.(\w+)", (rf"{dino}blocks.\1.attn.proj.\2",), _same),
        (
            r"vision\.dino\.encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1",
            (rf"{dino}blocks.\1.ls\2.{names.layer_scale}",),
            _same,
        ),
        (r"vision\.dino\.encoder\.layer\.(\d+)\.((?:norm|mlp).*)", (rf"{dino}blocks.\1.\2",), _same),
        (r"vision\.dino\.layernorm\.(\w+)", (rf"{dino}norm.\1",), _same),
        (r"vision\.siglip\.embeddings\.patch_embedding\.(\w+)", (rf"{siglip}patch_embed.proj.\1",), _same),
        (r"vision\.siglip\.embeddings\.position_embedding\.weight", (f"{siglip}pos_embed",), lambda p: p[0]),
        (r"vision\.siglip\.encoder\.layers\.(\d+)\.layer_norm(\d\.\w+)", (rf"{block}norm\2",), _same),
        (r"vision\.siglip\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(\w+)", (rf"{block}attn.proj.\2",), _same),
        (r"vision\.siglip\.encoder\.layers\.(\d+)\.(mlp.*)", (rf"{block}\2",), _same),
        (r"vision\.siglip\.post_layernorm\.(\w+)", (rf"{siglip}norm.\1",), _same),
        (r"vision\.siglip\.head\.probe", (f"{pool}latent",), _same),
        (r"vision\.siglip\.head\.attention\.in_proj_(\w+)", (rf"{pool}q.\1", rf"{pool}kv.\1"), _joined),
        (r"vision\.siglip\.head\.attention\.out_proj\.(\w+)", (rf"{pool}proj.\1",), _same),
        (r"vision\.siglip\.head\.layernorm\.(\w+)", (rf"{pool}norm.\1",), _same),
        (r"vision\.siglip\.head\.(mlp.*)", (rf"{pool}\1",), _same),
        *((rf"projector\.{2 * i}\.(\w+)", (rf"{layer}.\1",), _same) for i, layer in enumerate(names.projector)),
        (r"language\.llama\.(.*)", (rf"{names.language}.model.\1",), _same),
        (r"language\.(lm_head.*)", (rf"{names.language}.\1",), _same),
        (r"head\.(.*)", (r"action_model.\1",), _same),
    ]
    for index, part in enumerate("qkv"):
        attention = rf"vision\.dino\.encoder\.layer\.(\d+)\.attention\.{part}_proj\.(\w+)"
        rules.append((attention, (rf"{dino}blocks.\1.attn.qkv.\2",), _third(index)))
        attention = rf"vision\.siglip\.encoder\.layers\.(\d+)\.self_attn\.{part}_proj\.(\w+)"
        rules.append((attention, (rf"{siglip}blocks.\1.attn.qkv.\2",), _third(index)))
    return [(re.compile(pattern), published, make) for pattern, published, make in rules]


def _made(each: Origin, parts: list[Tensor], wanted: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Our tensor, or None if the published ones do not fit together."""
    if not parts:
        return torch.zeros(wanted.shape, dtype=dtype)
    try:
        return each.make(*parts)
    except (RuntimeError, IndexError):
        return None


def _common_dtype(tensors: Tensors) -> torch.dtype:
    return next((tensor.dtype for tensor in tensors.values()), torch.float32)


class _Shapes:
    """Shapes by name; asking for one that is not there is an error."""

    def __init__(self, tensors: Tensors, source: object) -> None:
        self._tensors, self._source = tensors, source

    def __call__(self, name: str, dimensions: int) -> tuple[int, ...]:
        if name not in self._tensors:
            seems = looks_like(self._tensors)
            raise InputError(f"{self._source}: missing ['{name}'], which says a size; it looks like {seems}")
        shape = tuple(self._tensors[name].shape)
        if len(shape) != dimensions:
            raise InputError(f"{self._source}: {name} has the shape {shape}, wanted {dimensions} dimensions")
        return shape

    def depth(self, prefix: str) -> int:
        """How many numbered parts there are."""
        numbers = {name[len(prefix) + 1 :].partition(".")[0] for name in self._tensors if name.startswith(f"{prefix}.")}
        return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)

    def heads(self, what: str, width: int, of_one: int) -> int:
        """How many attention heads a width makes."""
        if width % of_one:
            raise InputError(f"{self._source}: the width of {what} is {width}, wanted a multiple of {of_one}")
        return width // of_one
