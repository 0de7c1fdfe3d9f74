"""One decoder layer of Llama and Gemma as a pure function of tensors, so one compiled function serves all layers.

Keys and values of every position are computed in every layer; queries, MLP and output only where somebody reads them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.lean.linear import Linear, fused, linear


class DecoderShape(NamedTuple):
    """What does not come from tensors.

    Attributes:
        heads, kv_heads: of the attention.
        eps: inside the norms.
        gemma: Gemma's norms (in float32, scale from 1) and gate (GELU's tanh form) instead of Llama's.
    """

    heads: int
    kv_heads: int
    eps: float
    gemma: bool


class DecoderWeights(NamedTuple):
    """One layer."""

    norm1: Tensor
    qkv: Linear
    out: Linear
    norm2: Tensor
    gate_up: Linear
    down: Linear


class Read(NamedTuple):
    """What a layer gave.

    Attributes:
        hidden: (batch, the last `used` tokens, width).
        key, value: (batch, kv_heads, tokens, dim) of these tokens, keys turned to their positions.
    """

    hidden: Tensor
    key: Tensor
    value: Tensor


Layer = Callable[..., Read]


def decoder_layer(
    hidden: Tensor,
    weights: DecoderWeights,
    shape: DecoderShape,
    turn: tuple[Tensor, Tensor],
    mask: Tensor | None,
    causal: bool,
    past: tuple[Tensor, Tensor] | None,
    used: int,
) -> Read:
    """One layer.

    Args:
        hidden: (batch, tokens, width).
        weights, shape: of the layer.
        turn: cosine and signed sine of each position, (batch or 1, tokens, 1, dim).
        mask: (batch or 1, 1, tokens or 1, past and these tokens), as of `vla.accelerate.lean.decoder.mask_of`; None:
            all see all, unless `causal`.
        causal: whether a token sees only itself and those before; without `mask` and `past`.
        past: keys and values that come before these tokens'.
        used: how many of the last tokens are read afterwards.
    """
    batch, tokens, _ = hidden.shape
    mixed = weights.qkv(rms_norm(hidden, weights.norm1, shape))
    mixed = mixed.view(batch, tokens, shape.heads + 2 * shape.kv_heads, -1)
    turned, value = mixed.split([shape.heads + shape.kv_heads, shape.kv_heads], dim=2)
    query, key = rotate(turned, turn).transpose(1, 2).split([shape.heads, shape.kv_heads], dim=1)
    value = value.transpose(1, 2)  # (batch, kv_heads, tokens, dim)
    keys = key if past is None else torch.cat([past[0], key], dim=2)
    values = value if past is None else torch.cat([past[1], value], dim=2)
    if used == 0:
        return Read(hidden[:, :0], keys, values)
    if used < tokens:
        hidden, query = hidden[:, -used:], query[:, :, -used:]
        mask, causal = _of_last(mask, causal, used, keys)
    seen = _attention(query, _shared(keys, shape), _shared(values, shape), mask, causal)  # (batch, heads, used, dim)
    hidden = hidden + weights.out(seen.transpose(1, 2).reshape(batch, used, -1))
    gate, up = weights.gate_up(rms_norm(hidden, weights.norm2, shape)).chunk(2, dim=-1)
    gate = functional.gelu(gate, approximate="tanh") if shape.gemma else functional.silu(gate)
    return Read(hidden + weights.down(gate * up), keys, values)


def _attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Of (batch, heads, tokens, dim) each; a processor is faster at a bias for a few hundred tokens step by step."""
    if mask is None or mask.dtype != torch.float32 or mask.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)
    logits = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    return logits.add_(mask).softmax(dim=-1) @ values


def rms_norm(hidden: Tensor, weight: Tensor, shape: DecoderShape) -> Tensor:
    """Gemma scales by one more than the weight, in float32; Llama by the weight."""
    if shape.gemma:
        return functional.rms_norm(hidden.float(), hidden.shape[-1:], 1 + weight.float(), shape.eps).type_as(hidden)
    return functional.rms_norm(hidden, hidden.shape[-1:], weight, shape.eps)


def rotate(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of (batch, tokens, heads, dim): halves are swapped, the sine carries the sign."""
    cosine, signed_sine = turn
    return torch.addcmul(heads * cosine, heads.roll(heads.shape[-1] // 2, dims=-1), signed_sine)


def _of_last(mask: Tensor | None, causal: bool, used: int, keys: Tensor) -> tuple[Tensor | None, bool]:
    """The rows of a mask that the last tokens need; the very last one sees everything."""
    if mask is not None:
        return mask[:, :, -used:], False
    if not causal or used == 1:
        return None, False
    rows = torch.ones(used, keys.shape[2], dtype=torch.bool, device=keys.device)
    return rows.tril(keys.shape[2] - used), False


def _shared(heads: Tensor, shape: DecoderShape) -> Tensor:
    """Keys or values as every query head reads them, (batch, heads, tokens, dim)."""
    if shape.heads == shape.kv_heads:
        return heads
    batch, kv_heads, tokens, dim = heads.shape
    grouped = heads[:, :, None].expand(batch, kv_heads, shape.heads // kv_heads, tokens, dim)
    return grouped.reshape(batch, shape.heads, tokens, dim)


def weights_of(layer: Any) -> DecoderWeights:
    """Of a transformers Llama or Gemma layer, over its own weights."""
    attention, mlp = layer.self_attn, layer.mlp
    return DecoderWeights(
        layer.input_layernorm.weight,
        fused(attention.q_proj, attention.k_proj, attention.v_proj),
        linear(attention.o_proj),
        layer.post_attention_layernorm.weight,
        fused(mlp.gate_proj, mlp.up_proj),
        linear(mlp.down_proj),
    )
