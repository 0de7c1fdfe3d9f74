"""Vision towers: the modules of a model's own tower, without what transformers does around them in every call."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla.accelerate.lean.encoder import Encode, Encoder, dino_block, siglip_block, vit_block
from vla.accelerate.lean.linear import norm
from vla.accelerate.reduction.calls import Features
from vla.accelerate.reduction.merging import Merge, Merger
from vla.models.vision.dinosiglip import DinoSiglipTower
from vla.models.vision.vit import VisionTower


class Patches:
    """Images to patch embeddings with positions; a convolution whose stride is its size is a matrix product.

    Its weights are laid out as a policy's images are, the channels of a pixel side by side: names and values stay.

    Args:
        convolution: of the patches.
        positions: (height, width) of an image -> (1, tokens, width); asked once for each size.
        first: (1, n, width) tokens that come before the patches and already have their positions; None for none.
    """

    def __init__(
        self, convolution: nn.Conv2d, positions: Callable[[int, int], Tensor], first: Callable[[Tensor], Tensor] | None
    ) -> None:
        self._side = convolution.stride[0]
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
        self._weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)  # (width, side * side * channels), a view
        self._bias = convolution.bias
        self._positions, self._first = positions, first
        self._made: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}

    def __call__(self, images: Tensor, some: Tensor | None = None) -> Tensor:
        """(batch, 3, height, width) -> (batch, first + patches, width); of (batch, some) int64 patches if given."""
        batch, channels, height, width = map(int, images.shape)  # tensors while it is traced
        side = self._side
        rows = images.permute(0, 2, 3, 1).reshape(batch, height // side, side, width // side, side * channels)
        flat = rows.transpose(2, 3).reshape(batch, -1, side * side * channels)  # (batch, patches, numbers)
        positions, first = self._of_size(height, width)
        if some is not None:
            flat, positions = flat.gather(1, some[..., None].expand(-1, -1, flat.shape[-1])), positions[0, some]
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
        patches: images -> tokens, of some patches only if asked to.
        encoder: the blocks.
        first: tokens before the patches, which are not handed on.
        last: the final norm; None: there is none.
    """

    def __init__(self, patches: Patches, encoder: Encoder, first: int, last: Images | None) -> None:
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

    def again(self, images: Tensor, patches: Tensor | None, keys: Any) -> tuple[Tensor, Any]:
        """Images that are like earlier ones: only some patches are read again.

        Args:
            images: (rows, channels, height, width).
            patches: (rows, some) int64: which; None: all.
            keys: of the earlier images, as they were given, unless `patches` is None.

        Returns:
            (rows, some, width) of these patches; keys and values of all tokens by block.
        """
        where = None
        if patches is not None:
            before = torch.arange(self._first, device=patches.device).expand(len(patches), -1)
            where = torch.cat([before, self._first + patches], dim=1)
        made, keys = self._encoder.again(self._patches(images, patches), where, keys)
        tokens = made[:, self._first :]
        return (tokens if self._last is None else self._last(tokens)), keys


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

    def again(self, images: Tensor, patches: Tensor | None, keys: Any) -> tuple[Tensor, Any]:
        """As `Blocks.again`, with the keys of both."""
        for_dino, for_siglip = images.split(3, dim=1)
        of_dino, of_siglip = keys or (None, None)
        dino, of_dino = self._dino.again(for_dino, patches, of_dino)
        siglip, of_siglip = self._siglip.again(for_siglip, patches, of_siglip)
        return torch.cat([dino, siglip], dim=-1), (of_dino, of_siglip)


class Projected:
    """A tower and the projector behind it, which sees every patch by itself."""

    def __init__(self, tower: "Tower", projector: Callable[[Tensor], Tensor]) -> None:
        self._tower, self._projector = tower, projector

    def __call__(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, patches, language_width)."""
        return self._projector(self._tower(images))

    def again(self, images: Tensor, patches: Tensor | None, keys: Any) -> tuple[Tensor, Any]:
        """As `Blocks.again`."""
        tokens, keys = self._tower.again(images, patches, keys)
        return self._projector(tokens), keys


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
