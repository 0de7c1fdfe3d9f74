"""A pre-norm transformer block without mask, as vision towers and the DiT have it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla.accelerate.lean.linear import Linear, Norm, fused, linear, norm
from vla.accelerate.reduction.calls import Features
from vla.accelerate.reduction.merging import SELECT, Merge, Merger, Patches
from vla.timing import part

KeyValue = tuple[Tensor, Tensor]  # each (rows, heads, tokens, dim)
Encode = Callable[[Tensor, tuple["EncoderWeights", ...], "EncoderShape"], Tensor]
_TOGETHER = 4  # blocks in one call: a compiled function costs as much to call as a small block to run


class EncoderShape(NamedTuple):
    """What does not come from tensors.

    Attributes:
        heads: of the attention.
        gelu: its form, "none" for the exact one or "tanh".
    """

    heads: int
    gelu: str


class EncoderWeights(NamedTuple):
    """One block; the scales are LayerScale's, None where there is none."""

    norm1: Norm
    qkv: Linear
    out: Linear
    scale1: Tensor | None
    norm2: Norm
    fc1: Linear
    fc2: Linear
    scale2: Tensor | None


class Encoder:
    """All blocks of an encoder, a few in a call.

    Args:
        blocks: weights and shape of each; the shape is the same for all.
        encode: `encoder_blocks`, or a compiled one.
    """

    def __init__(self, blocks: Sequence[tuple[EncoderWeights, EncoderShape]], encode: Encode) -> None:
        self._encode = encode
        self._each = list(blocks)
        self._groups: list[tuple[tuple[EncoderWeights, ...], EncoderShape]] = []
        for start in range(0, len(blocks), _TOGETHER):
            weights = tuple(each for each, _ in blocks[start : start + _TOGETHER])
            self._groups.append((weights, blocks[start][1]))

    def __call__(self, hidden: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same."""
        for weights, shape in self._groups:
            hidden = self._encode(hidden, weights, shape)
        return hidden

    def watched(
        self, hidden: Tensor, first: int, merger: Merger | None, statistics: bool, again: Sequence[Merge] = ()
    ) -> tuple[Features, list[Merge]]:
        """The same with patches merged on the way, or with what the last block attends to.

        Args:
            hidden: (rows, first + patches, width).
            first: tokens before the patches, which are never merged.
            merger: what merges; None: nothing.
            statistics: whether importance and keys are wanted.
            again: merges of another tower over the same patches, to be done here at the same blocks.

        Returns:
            The patches, before any final norm, and the merges that were made.
        """
        patches, merges, known = Patches(hidden.shape[1] - first, len(hidden), hidden.device), [], (None, None)
        for number, (weights, shape) in enumerate(self._each):
            count = 0 if merger is None else merger.merges.get(number, 0)
            done = next((merge for merge in again if merge.block == number), None)
            asked = statistics and number == len(self._each) - 1
            if not (count or done or asked or patches.sizes is not None):
                hidden = self._encode(hidden, (weights,), shape)
                continue
            bias = patches.bias(first, hidden.dtype)
            if count and merger is not None and merger.of_attention:
                hidden, query, key, made = _merged_attention(
                    hidden, weights, shape, first, patches, merger, number, count
                )
                merges.append(made)
            else:
                hidden, query, key = _attended(hidden, weights, shape, bias)
                made = done
                if count and merger is not None:
                    with part(SELECT):
                        keys = key[:, :, first:].mean(dim=1)
                        made = merger.merge(number, count, hidden[:, first:], keys, None, patches)
                    merges.append(made)
                if made is not None:
                    with part(SELECT):
                        hidden = patches.merged(hidden, first, made)
            if asked:
                with part(SELECT):
                    known = _looked_at(query, key, first, bias, made)
            hidden = _fed(hidden, weights, shape)
        return Features(hidden[:, first:], patches.index, patches.owner, *known), merges

    def again(
        self, hidden: Tensor, where: Tensor | None, kept: Sequence[KeyValue] | None
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Some tokens through the blocks once more, while the keys and values of the others stay as they were.

        Args:
            hidden: (rows, some, width) embeddings of these tokens.
            where: (rows, some) int64 indices of them; None: they are all there are.
            kept: keys and values of all tokens by block, unless `where` is None.

        Returns:
            The same tokens after all blocks, and the keys and values of all tokens.
        """
        now = []
        for number, (weights, shape) in enumerate(self._each):
            query, key, value = _heads(hidden, weights, shape)
            if where is not None and kept is not None:
                at = where[:, None, :, None].expand_as(key)
                key, value = kept[number][0].scatter(2, at, key), kept[number][1].scatter(2, at, value)
            now.append((key, value))
            mixed = functional.scaled_dot_product_attention(query, key, value)
            mixed = mixed.transpose(1, 2).reshape(hidden.shape)
            hidden = _fed(_added(hidden, weights.out(mixed), weights.scale1), weights, shape)
        return hidden, tuple(now)


def encoder_blocks(hidden: Tensor, weights: tuple[EncoderWeights, ...], shape: EncoderShape) -> Tensor:
    """Several blocks, (batch, tokens, width) -> the same."""
    for each in weights:
        hidden = _block(hidden, each, shape)
    return hidden


def _block(hidden: Tensor, weights: EncoderWeights, shape: EncoderShape) -> Tensor:
    return _fed(_attended(hidden, weights, shape, None)[0], weights, shape)


def _attended(
    hidden: Tensor, weights: EncoderWeights, shape: EncoderShape, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """After the attention; its queries and keys, (batch, heads, tokens, dim). A bias is added to all logits."""
    query, key, value = _heads(hidden, weights, shape)
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    mixed = mixed.transpose(1, 2).reshape(hidden.shape)
    return _added(hidden, weights.out(mixed), weights.scale1), query, key


def _heads(hidden: Tensor, weights: EncoderWeights, shape: EncoderShape) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each (batch, heads, tokens, dim)."""
    batch, tokens, width = hidden.shape
    qkv = weights.qkv(weights.norm1(hidden)).view(batch, tokens, 3, shape.heads, width // shape.heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value


def _fed(hidden: Tensor, weights: EncoderWeights, shape: EncoderShape) -> Tensor:
    """After the MLP; what is inside it stays in the numbers that the second map multiplies in."""
    inside = functional.gelu(weights.fc1(weights.norm2(hidden), weights.fc2.dtype), approximate=shape.gelu)
    return _added(hidden, weights.fc2(inside, hidden.dtype), weights.scale2)


def _merged_attention(
    hidden: Tensor,
    weights: EncoderWeights,
    shape: EncoderShape,
    first: int,
    patches: Patches,
    merger: Merger,
    number: int,
    count: int,
) -> tuple[Tensor, Tensor, Tensor, Merge]:
    """As `_attended`, with fewer patches afterwards, by an attention that is merged itself; and the merge."""
    query, key, value = _heads(hidden, weights, shape)
    shares = _shares(query, key, patches.bias(first, hidden.dtype))  # (batch, heads, tokens, tokens)
    with part(SELECT):
        received = shares.mean(dim=(1, 2))[:, first:]
        made = merger.merge(number, count, hidden[:, first:], key[:, :, first:].mean(dim=1), received, patches)
        pool, join = made.pooling(first, hidden.dtype), made.joining(first, hidden.dtype)  # (batch, fewer, tokens)
        shares = pool[:, None] @ (shares.to(hidden.dtype) @ join[:, None].transpose(-1, -2))
        value = pool[:, None] @ value
        hidden = patches.merged(hidden, first, made)
    mixed = (shares @ value).transpose(1, 2).reshape(hidden.shape)
    return _added(hidden, weights.out(mixed), weights.scale1), query, key, made


def _shares(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """Attention, (batch, heads, rows, tokens) float32."""
    logits = (query @ key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5
    return (logits if bias is None else logits + bias).softmax(dim=-1)


def _looked_at(
    query: Tensor, key: Tensor, first: int, bias: Tensor | None, merge: Merge | None
) -> tuple[Tensor, Tensor]:
    """How much attention each patch gets (batch, patches) float32, and its key (batch, patches, dim), mean over heads.

    The row of the class token tells where there is one. Without, it is the mean over all rows, of this one block.
    Patches that merge in this block add up what they get.
    """
    rows = query[:, :, :1] if first else query
    got, keys = _shares(rows, key, bias)[..., first:].mean(dim=(1, 2)), key[:, :, first:].mean(dim=1)
    if merge is None:
        return got, keys
    together = torch.zeros_like(merge.survivors, dtype=got.dtype).scatter_add(1, merge.owner, got)
    return together, merge.mean(keys, 0)


def _added(hidden: Tensor, update: Tensor, scale: Tensor | None) -> Tensor:
    return hidden + update if scale is None else hidden + update * scale


def vit_block(layer: Any) -> tuple[EncoderWeights, EncoderShape]:
    """Of transformers' `ViTLayer`."""
    attention, mlp = layer.attention, layer.mlp
    weights = EncoderWeights(
        norm(layer.layernorm_before), _qkv(attention), linear(attention.o_proj), None,
        norm(layer.layernorm_after), linear(mlp.fc1), linear(mlp.fc2), None,
    )  # fmt: skip
    return weights, EncoderShape(attention.num_attention_heads, _gelu(mlp.activation_fn))


def dino_block(layer: Any) -> tuple[EncoderWeights, EncoderShape]:
    """Of transformers' `Dinov2WithRegistersLayer`."""
    attention, mlp = layer.attention, layer.mlp
    weights = EncoderWeights(
        norm(layer.norm1), _qkv(attention), linear(attention.o_proj), layer.layer_scale1.lambda1,
        norm(layer.norm2), linear(mlp.fc1), linear(mlp.fc2), layer.layer_scale2.lambda1,
    )  # fmt: skip
    return weights, EncoderShape(attention.num_attention_heads, _gelu(mlp.activation_fn))


def siglip_block(layer: Any) -> tuple[EncoderWeights, EncoderShape]:
    """Of transformers' `SiglipEncoderLayer`."""
    attention, mlp = layer.self_attn, layer.mlp
    weights = EncoderWeights(
        norm(layer.layer_norm1), _qkv(attention), linear(attention.out_proj), None,
        norm(layer.layer_norm2), linear(mlp.fc1), linear(mlp.fc2), None,
    )  # fmt: skip
    return weights, EncoderShape(attention.num_heads, _gelu(mlp.activation_fn))


def dit_block(block: Any) -> tuple[EncoderWeights, EncoderShape]:
    """Of the diffusion transformer: a `vla.models.heads.dit.Block`."""
    attention, mlp = block.attn, block.mlp
    weights = EncoderWeights(
        norm(block.norm1), linear(attention.qkv), linear(attention.proj), None,
        norm(block.norm2), linear(mlp.fc1), linear(mlp.fc2), None,
    )  # fmt: skip
    return weights, EncoderShape(attention.heads, _gelu(mlp.act))


def _qkv(attention: Any) -> Linear:
    return fused(attention.q_proj, attention.k_proj, attention.v_proj)


def _gelu(activation: Any) -> str:
    """Which form of GELU a module computes."""
    if isinstance(activation, nn.GELU):
        return activation.approximate
    name = type(activation).__name__
    assert name in ("GELUActivation", "GELUTanh"), f"no GELU: {name}"
    return "tanh" if name == "GELUTanh" else "none"
