"""Decoder layers of Llama and Gemma: where a prefix is read, where a suffix goes on from it, and nothing else.

A layer is a pure function of tensors, so one compiled function serves all layers of a model. Keys and values of every
position are computed in every layer; queries, MLP and output only where somebody reads them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
        mask: (batch or 1, 1, tokens or 1, past and these tokens) bool; None: all see all, unless `causal`.
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
    seen = functional.scaled_dot_product_attention(
        query, _shared(keys, shape), _shared(values, shape), attn_mask=mask, is_causal=causal
    )  # (batch, heads, used, dim)
    hidden = hidden + weights.out(seen.transpose(1, 2).reshape(batch, used, -1))
    gate, up = weights.gate_up(rms_norm(hidden, weights.norm2, shape)).chunk(2, dim=-1)
    gate = functional.gelu(gate, approximate="tanh") if shape.gemma else functional.silu(gate)
    return Read(hidden + weights.down(gate * up), keys, values)


def rms_norm(hidden: Tensor, weight: Tensor, shape: DecoderShape) -> Tensor:
    """Gemma scales by one more than the weight, in float32; Llama by the weight."""
    if shape.gemma:
        return functional.rms_norm(hidden.float(), hidden.shape[-1:], 1 + weight.float(), shape.eps).type_as(hidden)
    return functional.rms_norm(hidden, hidden.shape[-1:], weight, shape.eps)


def rotate(heads: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of (batch, tokens, heads, dim): halves are swapped, the sine carries the sign."""
    cosine, signed_sine = turn
    return heads * cosine + heads.roll(heads.shape[-1] // 2, dims=-1) * signed_sine


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


@dataclass(frozen=True)
class Tokens:
    """A sequence on its way through the layers.

    Attributes:
        hidden: (batch, tokens, width).
        positions: (batch, tokens) int64, of the full sequence whatever was taken out of it since.
        attended: (batch, tokens) bool, False at padding.
        padded: whether there is any padding.
    """

    hidden: Tensor
    positions: Tensor
    attended: Tensor
    padded: bool

    def kept(self, index: Tensor) -> "Tokens":
        """Only the tokens at (kept,) int64 ascending indices, at their positions."""
        return replace(
            self,
            hidden=self.hidden[:, index],
            positions=self.positions[:, index],
            attended=self.attended[:, index],
        )


Reduce = Callable[[int, Tokens], Tokens]


class Decoder:
    """The layers and the final norm of a transformers Llama or Gemma, over its own weights.

    Args:
        model: a `LlamaModel` or `GemmaModel`.
        layer: `decoder_layer`, or a compiled one.
        gemma: which of the two it is.
        causal: whether a token sees only itself and those before.
        positions: how many there are at most.
    """

    def __init__(self, model: Any, layer: Layer, *, gemma: bool, causal: bool, positions: int) -> None:
        self.layers = [_weights(each) for each in model.layers]
        config = model.config
        self.shape = DecoderShape(config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps, gemma)
        self._layer, self._causal, self._norm = layer, causal, model.norm.weight
        everywhere = torch.arange(positions, device=self._norm.device)[None]
        cosine, sine = model.rotary_emb(self._norm, everywhere)  # (1, positions, dim) in the model's dtype
        sign = torch.ones_like(sine)
        sign[..., : sine.shape[-1] // 2] = -1
        self._turns = cosine[0, :, None], (sine * sign)[0, :, None]  # each (positions, 1, dim)

    def read(
        self, tokens: Tokens, used: int, before: Mapping[int, Sequence[Reduce]] | None = None
    ) -> tuple[Tokens, list[tuple[Tensor, Tensor]]]:
        """Read a prefix.

        Args:
            tokens: all of them.
            used: how many of the last tokens' hidden states are read; 0 if only keys and values are.
            before: layer -> what is done to the tokens in front of it, in turn; it may take some out.

        Returns:
            The tokens that are left, their last `used` hidden states before the final norm; keys and values by layer.
        """
        cache, last = [], len(self.layers) - 1
        turn, mask, causal = self._around(tokens)
        for number, weights in enumerate(self.layers):
            for reduce in (before or {}).get(number, ()):
                tokens = reduce(number, tokens)
                turn, mask, causal = self._around(tokens)
            wanted = used if number == last else tokens.hidden.shape[1]
            hidden, key, value = self._layer(tokens.hidden, weights, self.shape, turn, mask, causal, None, wanted)
            tokens = replace(tokens, hidden=hidden)
            cache.append((key, value))
        return tokens, cache

    def go_on(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past: Sequence[tuple[Tensor, Tensor]],
        used: int,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Read more tokens after a prefix.

        Args:
            hidden: (batch, tokens, width).
            turn: of their positions, from `turn`.
            mask: (batch, 1, tokens, past and these tokens) bool; None: all see all.
            past: keys and values by layer, left as they are.
            used: how many of the last tokens' hidden states are read.

        Returns:
            (batch, used, width) before the final norm; keys and values of past and these tokens by layer.
        """
        cache, last = [], len(self.layers) - 1
        for number, (weights, before) in enumerate(zip(self.layers, past, strict=True)):
            wanted = used if number == last else hidden.shape[1]
            hidden, key, value = self._layer(hidden, weights, self.shape, turn, mask, False, before, wanted)
            cache.append((key, value))
        return hidden, cache

    def turn(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine of (batch, tokens) positions, each (batch, tokens, 1, dim)."""
        cosine, sine = self._turns
        return cosine[positions], sine[positions]

    def norm(self, hidden: Tensor) -> Tensor:
        """The final norm."""
        return rms_norm(hidden, self._norm, self.shape)

    def _around(self, tokens: Tokens) -> tuple[tuple[Tensor, Tensor], Tensor | None, bool]:
        """Turns, mask, and whether it is the plain causal one, which needs none."""
        turn = self.turn(tokens.positions)
        if not tokens.padded:
            return turn, None, self._causal
        mask = tokens.attended[:, None, None]  # (batch, 1, 1, tokens)
        if self._causal:
            count = tokens.attended.shape[1]
            mask = mask & torch.ones(count, count, dtype=torch.bool, device=mask.device).tril()
        return turn, mask, False


def sequence(hidden: Tensor, attended: Tensor) -> Tokens:
    """A fresh sequence; padding does not count as a position.

    On a GPU the mask is always built: to look whether it is needed would make the device wait.
    """
    padded = attended.is_cuda or not bool(attended.all())
    return Tokens(hidden, (attended.long().cumsum(dim=1) - 1).clamp(min=0), attended, padded)


def _weights(layer: Any) -> DecoderWeights:
    attention, mlp = layer.self_attn, layer.mlp
    return DecoderWeights(
        layer.input_layernorm.weight,
        fused(attention.q_proj, attention.k_proj, attention.v_proj),
        linear(attention.o_proj),
        layer.post_attention_layernorm.weight,
        fused(mlp.gate_proj, mlp.up_proj),
        linear(mlp.down_proj),
    )
