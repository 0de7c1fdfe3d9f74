"""A pre-norm transformer block without mask, as vision towers and the DiT have it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from vla.accelerate.lean.linear import Linear, Norm, fused, linear, norm

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
        self._groups: list[tuple[tuple[EncoderWeights, ...], EncoderShape]] = []
        for start in range(0, len(blocks), _TOGETHER):
            weights = tuple(each for each, _ in blocks[start : start + _TOGETHER])
            self._groups.append((weights, blocks[start][1]))

    def __call__(self, hidden: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same."""
        for weights, shape in self._groups:
            hidden = self._encode(hidden, weights, shape)
        return hidden


def encoder_blocks(hidden: Tensor, weights: tuple[EncoderWeights, ...], shape: EncoderShape) -> Tensor:
    """Several blocks, (batch, tokens, width) -> the same."""
    for each in weights:
        hidden = _block(hidden, each, shape)
    return hidden


def _block(hidden: Tensor, weights: EncoderWeights, shape: EncoderShape) -> Tensor:
    batch, tokens, width = hidden.shape
    qkv = weights.qkv(weights.norm1(hidden)).view(batch, tokens, 3, shape.heads, width // shape.heads)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, heads, tokens, dim)
    mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, tokens, width)
    hidden = _added(hidden, weights.out(mixed), weights.scale1)
    inside = functional.gelu(weights.fc1(weights.norm2(hidden)), approximate=shape.gelu)
    return _added(hidden, weights.fc2(inside), weights.scale2)


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
