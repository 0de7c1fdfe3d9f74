"""The language model: a causal Llama over word embeddings and whatever else is written in the same space."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel
from transformers.cache_utils import DynamicCache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding


class LanguageModel(nn.Module):
    """A `transformers` Llama.

    Args:
        vocabulary: rows of the embedding table.
        width: features of a token.
        depth: decoder layers.
        heads: attention heads.
        mlp_width: features inside the gated MLP.
        max_positions: longest sequence.
        norm_eps: inside the norms.
        head: with a vocabulary head.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        mlp_width: int,
        max_positions: int,
        norm_eps: float = 1e-6,
        head: bool = False,
    ) -> None:
        super().__init__()
        self.llama = LlamaModel(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                num_key_value_heads=heads,
                intermediate_size=mlp_width,
                max_position_embeddings=max_positions,
                rms_norm_eps=norm_eps,
                pad_token_id=None,
                use_cache=False,
            )
        )
        self.lm_head = nn.Linear(width, vocabulary, bias=False) if head else None

    def compute_buffers(self) -> None:
        """Make what no checkpoint holds, after a construction without memory."""
        self.llama.rotary_emb = LlamaRotaryEmbedding(self.llama.config)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LanguageModel":
        """Move and cast, but keep the rotary frequencies in float32: in bfloat16 far positions are off by 0.1 rad."""
        rotary = self.llama.rotary_emb
        exact = {name: getattr(rotary, name) for name in ("inv_freq", "original_inv_freq")}
        super()._apply(fn, recurse)
        for name, frequencies in exact.items():
            moved = getattr(rotary, name)
            if moved.dtype != frequencies.dtype:
                setattr(rotary, name, frequencies.to(moved.device))
        return self

    def embed(self, ids: Tensor) -> Tensor:
        """Word embeddings, (batch, words) int64 -> (batch, words, width)."""
        return self.llama.get_input_embeddings()(ids)

    def forward(
        self, embeddings: Tensor, attended: Tensor, cache: DynamicCache | None = None, causal: bool = True
    ) -> Tensor:
        """Run the decoder layers and the final norm.

        Padding is invisible: nothing attends to it and it does not count as a position.

        Args:
            embeddings: (batch, tokens, width).
            attended: (batch, tokens so far and these) bool, False at padding.
            cache: keys and values of the tokens so far; these are added to it. None: there are none, keep none.
            causal: whether a token sees only those before it; else these tokens see each other.

        Returns:
            (batch, tokens, width) hidden states after the final norm; meaningless at padding.
        """
        positions = attended.long().cumsum(dim=1) - 1  # (batch, tokens so far and these)
        return self.llama(
            inputs_embeds=embeddings,
            attention_mask=attended.long() if causal else _both_ways(embeddings, attended),
            position_ids=positions[:, -embeddings.shape[1] :].clamp(min=0),
            cache=cache,
            use_cache=cache is not None,
        ).last_hidden_state


def _both_ways(embeddings: Tensor, attended: Tensor) -> Tensor:
    """(batch, 1, tokens, all) what is added to the scores so that every token sees all that are attended."""
    bias = torch.zeros_like(attended, dtype=embeddings.dtype).masked_fill(~attended, torch.finfo(embeddings.dtype).min)
    return bias[:, None, None].expand(-1, 1, embeddings.shape[1], -1)
