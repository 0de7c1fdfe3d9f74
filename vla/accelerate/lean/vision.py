"""Vision towers: the modules of a model's own tower, without what transformers does around them in every call."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla.accelerate.lean.encoder import Encode, Encoder, KeyValue, dino_block, siglip_block, vit_block
from vla.accelerate.lean.linear import norm
from vla.accelerate.reduction.calls import Features
from vla.accelerate.reduction.merging import Merge, Merger
from vla.models.vision.dinosiglip import DinoSiglipTower
from vla.models.vision.vit import VisionTower


class Patches:
    """Images to patch embeddings with positions; a convolution whose stride is its size is a matrix product.

    Args:
        convolution: of the patches.
        positions: (height, width) of an image -> (1, tokens, width); asked once for each size.
        first: (1, n, width) tokens that come before the patches and already have their positions; None for none.
    """

    def __init__(
        self, convolution: nn.Conv2d, positions: Callable[[int, int], Tensor], first: Callable[[Tensor], Tensor] | None
    ) -> None:
        self._side = convolution.stride[0]
        self._weight = convolution.weight.flatten(1)  # (width, 3 * side * side), a view
        self._bias = convolution.bias
        self._positions, self._first = positions, first
        self._made: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, first + patches, width)."""
        batch, channels, height, width = images.shape
        side = self._side
        cut = images.reshape(batch, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
        flat = cut.reshape(batch, -1, channels * side * side)  # (batch, patches, 3 * side * side)
        positions, first = self._of_size(height, width)
        patches = functional.linear(flat.to(self._weight.dtype), self._weight, self._bias) + positions
        return patches if first is None else torch.cat([first.expand(batch, -1, -1), patches], dim=1)

    def _of_size(self, height: int, width: int) -> tuple[Tensor, Tensor | None]:
        """Positions of the patches, and the tokens before them."""
        if (height, width) not in self._made:
            positions = self._positions(height, width)  # (1, tokens, width), of a class token too if there is one
            made = (positions, None) if self._first is None else (positions[:, 1:], self._first(positions[:, :1]))
            self._made[height, width] = made
        return self._made[height, width]


Images = Callable[[Tensor], Tensor]


class Watched(NamedTuple):
    """How a tower is run when its patches are merged or its attention is asked for.

    Attributes:
        merger: what merges; None: nothing.
        statistics: whether importance and keys are wanted.
    """

    merger: Merger | None
    statistics: bool


class Blocks:
    """A tower as embeddings, blocks and a final norm.

    Args:
        patches: images -> tokens.
        encoder: the blocks.
        first: tokens before the patches, which are not handed on.
        last: the final norm; None: there is none.
    """

    def __init__(self, patches: Images, encoder: Encoder, first: int, last: Images | None) -> None:
        self._patches, self._encoder, self._first, self._last = patches, encoder, first, last

    def __call__(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, patches, width)."""
        tokens = self._encoder(self._patches(images))[:, self._first :]
        return tokens if self._last is None else self._last(tokens)

    def watched(self, images: Tensor, how: Watched, again: Sequence[Merge] = ()) -> tuple[Features, list[Merge]]:
        """The patches as `Encoder.watched` gives them, after the final norm."""
        found, merges = self._encoder.watched(self._patches(images), self._first, *how, again)
        tokens = found.tokens if self._last is None else self._last(found.tokens)
        return found._replace(tokens=tokens), merges

    def again(self, images: Tensor, patches: Tensor | None, kept: "Kept | None") -> "Kept":
        """Images that are like earlier ones: only some patches are read again.

        Args:
            images: (rows, channels, height, width).
            patches: (rows, some) int64: which; None: all.
            kept: of the earlier images, unless `patches` is None.
        """
        hidden = self._patches(images)
        if patches is None or kept is None:
            made, keys = self._encoder.again(hidden, None, ())
            return Kept((keys,), (self._normed(made[:, self._first :]),))
        before = torch.arange(self._first, device=patches.device).expand(len(patches), -1)
        where = torch.cat([before, self._first + patches], dim=1)
        some = hidden.gather(1, where[..., None].expand(-1, -1, hidden.shape[-1]))
        made, keys = self._encoder.again(some, where, kept.keys[0])
        fresh = self._normed(made[:, self._first :])
        at = patches[..., None].expand_as(fresh)
        return Kept((keys,), (kept.features[0].scatter(1, at, fresh),))

    def _normed(self, tokens: Tensor) -> Tensor:
        return tokens if self._last is None else self._last(tokens)


class Kept(NamedTuple):
    """What one tower, or two side by side, made of images.

    Attributes:
        keys: keys and values of all tokens, by tower and block.
        features: by tower, (rows, patches, width).
    """

    keys: tuple[tuple[KeyValue, ...], ...]
    features: tuple[Tensor, ...]


class Fused:
    """DINOv2 and SigLIP side by side; patches merge as DINOv2 has it, so that both have the same tokens."""

    def __init__(self, dino: Blocks, siglip: Blocks) -> None:
        self._dino, self._siglip = dino, siglip

    def __call__(self, images: Tensor) -> Tensor:
        """(batch, 6, height, width) -> (batch, patches, width)."""
        for_dino, for_siglip = images.split(3, dim=1)
        return torch.cat([self._dino(for_dino), self._siglip(for_siglip)], dim=-1)

    def watched(self, images: Tensor, how: Watched) -> tuple[Features, list[Merge]]:
        """As `Blocks.watched`."""
        for_dino, for_siglip = images.split(3, dim=1)
        found, merges = self._dino.watched(for_dino, how)
        beside, _ = self._siglip.watched(for_siglip, Watched(None, False), merges)
        return found._replace(tokens=torch.cat([found.tokens, beside.tokens], dim=-1)), merges

    def again(self, images: Tensor, patches: Tensor | None, kept: Kept | None) -> Kept:
        """As `Blocks.again`."""
        views = images.split(3, dim=1)
        parts = (
            (None, None)
            if kept is None
            else (Kept(kept.keys[:1], kept.features[:1]), Kept(kept.keys[1:], kept.features[1:]))
        )
        towers = zip((self._dino, self._siglip), views, parts, strict=True)
        dino, siglip = (tower.again(view, patches, part) for tower, view, part in towers)
        return Kept(dino.keys + siglip.keys, dino.features + siglip.features)


Tower = Blocks | Fused


def tower(module: nn.Module, encode: Encode) -> Tower:
    """The tower of a trunk: images (batch, channels, height, width) -> (batch, patches, width)."""
    if isinstance(module, VisionTower):
        return _vit(module, encode)
    assert isinstance(module, DinoSiglipTower)
    return Fused(_dino(module, encode), _siglip(module.siglip, encode, skip_last=True, last=None))


def paligemma_tower(siglip: Any, encode: Encode) -> Blocks:
    """SigLIP as PaliGemma reads it: all blocks and the final norm, position embeddings as they are."""
    return _siglip(siglip, encode, skip_last=False, last=norm(siglip.post_layernorm))


def _vit(module: VisionTower, encode: Encode) -> Blocks:
    embeddings: Any = module.vit.embeddings
    patches = Patches(
        embeddings.patch_embeddings.projection,
        lambda height, width: _positions(embeddings, embeddings.patch_size, height, width),
        lambda position: embeddings.cls_token + position,
    )
    blocks = Encoder([vit_block(layer) for layer in module.vit.layers], encode)
    return Blocks(patches, blocks, 1, norm(module.vit.layernorm))


def _dino(module: DinoSiglipTower, encode: Encode) -> Blocks:
    embeddings: Any = module.dino.embeddings
    patches = Patches(
        embeddings.patch_embeddings.projection,
        lambda height, width: _positions(embeddings, embeddings.patch_size, height, width),
        lambda position: torch.cat([embeddings.cls_token + position, embeddings.register_tokens], dim=1),
    )
    blocks = Encoder([dino_block(layer) for layer in module.dino.encoder.layer[:-1]], encode)
    return Blocks(patches, blocks, module.prefix, None)


def _siglip(siglip: Any, encode: Encode, *, skip_last: bool, last: Images | None) -> Blocks:
    embeddings = siglip.embeddings

    def positions(height: int, width: int) -> Tensor:
        side = embeddings.patch_size
        like = embeddings.position_embedding.weight.new_empty(1, (height // side) * (width // side), 1)
        return embeddings.interpolate_pos_encoding(like.expand(-1, -1, embeddings.embed_dim), height, width)

    patches = Patches(embeddings.patch_embedding, positions, None)
    layers = siglip.encoder.layers[:-1] if skip_last else siglip.encoder.layers
    return Blocks(patches, Encoder([siglip_block(layer) for layer in layers], encode), 0, last)


def _positions(embeddings: Any, side: int, height: int, width: int) -> Tensor:
    """(1, 1 + patches, width) for an image of this size."""
    tokens = 1 + (height // side) * (width // side)
    like = embeddings.position_embeddings.new_empty(1, 1, 1).expand(1, tokens, embeddings.position_embeddings.shape[-1])
    return embeddings.interpolate_pos_encoding(like, height, width)
