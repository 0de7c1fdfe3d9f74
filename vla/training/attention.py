"""Operations that train fast on a CPU in place of those that infer fast; the parameters stay the same.

Measured on two kinds of CPU, the backward pass of fused attention takes a quarter to a third of a training step and
matmul, softmax, matmul does not; GELU's tanh form takes four times as long as the exact one. Both pairs agree to within
bfloat16's rounding, so a model trained with these operations is evaluated with its own.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.modeling_utils import AttentionInterface, PreTrainedModel

from vla.models.heads import dit

EXPLICIT = "cadence_explicit"


def use_training_operations(model: nn.Module) -> None:
    """Switch attention and GELU everywhere inside `model`."""
    AttentionInterface.register(EXPLICIT, _transformers_attention)
    AttentionMaskInterface.register(EXPLICIT, eager_mask)
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation(EXPLICIT)
        elif isinstance(module, dit.Attention):
            module.attend = explicit_attention
        elif isinstance(module, nn.GELU):
            module.approximate = "none"


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention over (batch, heads, tokens, dim); `mask` is added to the scores."""
    scores = torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3))  # (batch, heads, tokens, tokens)
    if mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(dim=-1), value)


def _transformers_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    return explicit_attention(query, key, value, attention_mask).transpose(1, 2), None


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(…, width) scaled to mean square 1, times `weight`; PyTorch's own takes twice as long to train through."""
    return _RmsNorm.apply(hidden, weight, eps)  # type: ignore[no-any-return]


def rotated(heads: Tensor, turn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Rotary position embedding.

    Args:
        heads: (batch, tokens, heads, dim).
        turn: cosine and sine, (batch, tokens, 1, dim), and what `swapping` gives.
    """
    cosine, sine, swap = turn
    return heads * cosine + (heads @ swap) * sine


def swapping(like: Tensor) -> Tensor:
    """(dim, dim) that makes (-b, a) of a head's halves (a, b), exactly; a product trains faster than moving memory."""
    one = torch.eye(like.shape[-1] // 2, dtype=like.dtype, device=like.device)
    zero = torch.zeros_like(one)
    return torch.cat([torch.cat([zero, one], dim=1), torch.cat([-one, zero], dim=1)])


class _RmsNorm(torch.autograd.Function):
    """Keeps the normalised values, from which both gradients follow."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (length.square() / hidden.shape[-1] + eps).rsqrt().to(hidden.dtype)  # (…, 1)
        unit = hidden * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        unit, scale, weight = ctx.saved_tensors
        moved = gradient * unit
        along = moved @ (weight[:, None] / len(weight))  # (…, 1): the part that only changes the length
        of_hidden = torch.addcmul(gradient * weight, unit, along, value=-1) * scale
        return of_hidden, moved.flatten(0, -2).sum(dim=0), None
