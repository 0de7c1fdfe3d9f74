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
