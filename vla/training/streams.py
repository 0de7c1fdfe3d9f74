"""One pass of a language model over a prompt, the words of its answer, and noisy copies of them.

The layers' own modules are called, but attention is computed stream by stream, each against only what it can see: there
is no mask over all pairs of tokens, and the prompt with its visual tokens is read once however many streams follow.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vla.models.language import LanguageModel
from vla.training.attention import explicit_attention, rms_norm, rotated, swapping
from vla.training.blocks import clean_sees_clean, noisy_sees_clean, noisy_sees_noisy


@dataclass(frozen=True)
class Layout:
    """Where streams are in a sequence [prompts][clean][noisy]…[noisy].

    Attributes:
        prompt: tokens of a prompt.
        copies: prompts: one that all streams share, or one more for each noisy stream.
        clean: words of the clean stream.
        noisy: words of a noisy stream.
        streams: noisy streams.
    """

    prompt: int
    copies: int
    clean: int
    noisy: int
    streams: int

    @property
    def prompts(self) -> int:
        """Tokens of all prompts."""
        return self.prompt * self.copies

    @property
    def lengths(self) -> list[int]:
        """Of prompts, clean stream and each noisy stream."""
        return [self.prompts, self.clean, *[self.noisy] * self.streams]


class Biases(NamedTuple):
    """What is added to attention scores: 0 where a row sees a column.

    Attributes:
        prompt: (batch, 1, prompt, prompt).
        clean: (batch, 1, clean, prompt and clean).
        noisy: (batch, 1, noisy, prompt, clean and noisy).
    """

    prompt: Tensor
    clean: Tensor
    noisy: Tensor


def biases(attended: Tensor, layout: Layout, block: int, begin: int, dtype: torch.dtype) -> Biases:
    """Biases of one pass.

    Args:
        attended: (batch, prompt) bool, False at what nobody sees.
        layout: of the sequence.
        block: words in a block.
        begin: words that the first block lacks.
        dtype: of the scores.
    """
    device, words = attended.device, layout.noisy
    prompt = attended[:, None, None]  # (batch, 1, 1, prompt)
    own = clean_sees_clean(layout.prompt).to(device)
    clean = clean_sees_clean(layout.clean).to(device)
    earlier, own_block = noisy_sees_clean(words, block, begin), noisy_sees_noisy(words, block, begin)
    noisy = torch.cat([earlier[:, : layout.clean], own_block], dim=1)
    return Biases(
        _bias(prompt & own, dtype),
        _bias(_beside(prompt, clean), dtype),
        _bias(_beside(prompt, noisy.to(device)), dtype),
    )


def read(language: LanguageModel, embeddings: Tensor, positions: Tensor, seen: Biases, layout: Layout) -> Tensor:
    """Hidden states after the final norm.

    Args:
        language: whose layers to run.
        embeddings: (batch, tokens, width) of the whole sequence.
        positions: (batch, tokens) int64.
        seen: who sees whom.
        layout: of the sequence.

    Returns:
        (batch, 1 + clean + streams * noisy, width): of the last token of the first prompt, then of all words.
    """
    llama: Any = language.llama
    hidden = embeddings
    turn = _turn(llama, hidden, positions)
    for layer in llama.layers[:-1]:
        hidden = _layer(layer, hidden, turn, seen, layout, from_row=0)
    from_row = layout.prompts - 1 if layout.copies == 1 else 0
    hidden = _layer(llama.layers[-1], hidden, turn, seen, layout, from_row)
    if from_row == 0:
        hidden = torch.cat([hidden[:, layout.prompt - 1 : layout.prompt], hidden[:, layout.prompts :]], dim=1)
    return _norm(llama.norm, hidden)


def _layer(layer: Any, hidden: Tensor, turn: Any, seen: Biases, layout: Layout, from_row: int) -> Tensor:
    """One decoder layer; the rows before `from_row` are only read as keys and values."""
    attention, normed = layer.self_attn, _norm(layer.input_layernorm, hidden)
    query, key, value = (
        project(normed).unflatten(-1, (-1, attention.head_dim))
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )  # (batch, tokens, heads, dim)
    query, key, value = (each.transpose(1, 2) for each in (rotated(query, turn), rotated(key, turn), value))
    mixed = torch.cat(_attended(query, key, value, seen, layout, from_row), dim=2)
    hidden = hidden[:, from_row:] + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    normed, mlp = _norm(layer.post_attention_layernorm, hidden), layer.mlp
    return hidden + mlp.down_proj(functional.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed))


def _attended(query: Tensor, key: Tensor, value: Tensor, seen: Biases, layout: Layout, from_row: int) -> list[Tensor]:
    """(batch, heads, rows, dim) of prompts, clean stream and each noisy stream."""
    queries, keys, values = (each.split(layout.lengths, dim=2) for each in (query, key, value))
    prompt_keys, prompt_values = (each[0].unflatten(2, (layout.copies, layout.prompt)) for each in (keys, values))
    first = prompt_keys[:, :, 0], prompt_values[:, :, 0]
    if layout.copies == 1:
        prompts = [explicit_attention(queries[0][:, :, from_row:], *first, seen.prompt[:, :, from_row:])]
    else:
        asked = queries[0].unflatten(2, (layout.copies, layout.prompt)).unbind(2)
        prompts = [
            explicit_attention(each, prompt_keys[:, :, i], prompt_values[:, :, i], seen.prompt)
            for i, each in enumerate(asked)
        ]
    if layout.clean == 0:
        return prompts
    known = torch.cat([first[0], keys[1]], dim=2), torch.cat([first[1], values[1]], dim=2)
    answers = [explicit_attention(queries[1], *known, seen.clean)]
    for i in range(layout.streams):
        if layout.copies > 1:
            known = (
                torch.cat([prompt_keys[:, :, 1 + i], keys[1]], dim=2),
                torch.cat([prompt_values[:, :, 1 + i], values[1]], dim=2),
            )
        all_keys, all_values = (torch.cat([old, new[2 + i]], 2) for old, new in zip(known, (keys, values), strict=True))
        answers.append(explicit_attention(queries[2 + i], all_keys, all_values, seen.noisy))
    return [*prompts, *answers]


def _turn(llama: Any, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine and sine, each (batch, tokens, 1, dim), and what swaps the halves of a head."""
    cosine, sine = llama.rotary_emb(hidden, position_ids=positions)
    return cosine[:, :, None], sine[:, :, None], swapping(cosine)


def _norm(norm: Any, hidden: Tensor) -> Tensor:
    return rms_norm(hidden, norm.weight, norm.variance_epsilon)


def _beside(prompt: Tensor, words: Tensor) -> Tensor:
    """(batch, 1, rows, prompt and words): all rows see the same of the prompt."""
    batch, rows = len(prompt), len(words)
    return torch.cat([prompt.expand(-1, -1, rows, -1), words.expand(batch, 1, -1, -1)], dim=-1)


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
