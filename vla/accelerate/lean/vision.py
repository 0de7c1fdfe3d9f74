"""Vision towers: the modules of a model's own tower, without what transformers does around them in every call."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla.accelerate.lean.encoder import Encode, Encoder, dino_block, siglip_block, vit_block
from vla.accelerate.lean.linear import norm
from vla.models.vision.dinosiglip import DinoSiglipTower
from vla.models.vision.vit import VisionTower

Tower = Callable[[Tensor], Tensor]


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


def tower(module: nn.Module, encode: Encode) -> Tower:
    """The tower of a trunk: images (batch, channels, height, width) -> (batch, patches, width)."""
    if isinstance(module, VisionTower):
        return _vit(module, encode)
    assert isinstance(module, DinoSiglipTower)
    dino, siglip = _dino(module, encode), _siglip(module.siglip, encode, skip_last=True)

    def both(images: Tensor) -> Tensor:
        for_dino, for_siglip = images.split(3, dim=1)
        return torch.cat([dino(for_dino), siglip(for_siglip)], dim=-1)

    return both


def paligemma_tower(siglip: Any, encode: Encode) -> Tower:
    """SigLIP as PaliGemma reads it: all blocks and the final norm, position embeddings as they are."""
    blocks, last = _siglip(siglip, encode, skip_last=False), norm(siglip.post_layernorm)
    return lambda images: last(blocks(images))


def _vit(module: VisionTower, encode: Encode) -> Tower:
    embeddings: Any = module.vit.embeddings
    last = norm(module.vit.layernorm)
    patches = Patches(
        embeddings.patch_embeddings.projection,
        lambda height, width: _positions(embeddings, embeddings.patch_size, height, width),
        lambda position: embeddings.cls_token + position,
    )
    blocks = Encoder([vit_block(layer) for layer in module.vit.layers], encode)
    return lambda images: last(blocks(patches(images))[:, 1:])


def _dino(module: DinoSiglipTower, encode: Encode) -> Tower:
    embeddings: Any = module.dino.embeddings
    patches = Patches(
        embeddings.patch_embeddings.projection,
        lambda height, width: _positions(embeddings, embeddings.patch_size, height, width),
        lambda position: torch.cat([embeddings.cls_token + position, embeddings.register_tokens], dim=1),
    )
    blocks = Encoder([dino_block(layer) for layer in module.dino.encoder.layer[:-1]], encode)
    return lambda images: blocks(patches(images))[:, module.prefix :]


def _siglip(siglip: Any, encode: Encode, *, skip_last: bool) -> Tower:
    embeddings = siglip.embeddings

    def positions(height: int, width: int) -> Tensor:
        side = embeddings.patch_size
        like = embeddings.position_embedding.weight.new_empty(1, (height // side) * (width // side), 1)
        return embeddings.interpolate_pos_encoding(like.expand(-1, -1, embeddings.embed_dim), height, width)

    patches = Patches(embeddings.patch_embedding, positions, None)
    layers = siglip.encoder.layers[:-1] if skip_last else siglip.encoder.layers
    blocks = Encoder([siglip_block(layer) for layer in layers], encode)
    return lambda images: blocks(patches(images))


def _positions(embeddings: Any, side: int, height: int, width: int) -> Tensor:
    """(1, 1 + patches, width) for an image of this size."""
    tokens = 1 + (height // side) * (width // side)
    like = embeddings.position_embeddings.new_empty(1, 1, 1).expand(1, tokens, embeddings.position_embeddings.shape[-1])
    return embeddings.interpolate_pos_encoding(like, height, width)
