"""Blocks of words that are filled in together: who sees whom, which words are hidden, and how blocks grow.

Fast-dVLM's conversion (arXiv 2604.06832) reads the words of an answer twice. The *clean* stream is read as ever: a word
sees the prompt and the words before it. The *noisy* streams have mask words in places and see the prompt, the clean
words of earlier blocks, and their own block in both directions. Words predict the word after them in all streams
(token shift), so the first word of a block is never hidden: decoding knows it from the block before.
`benchmarks/attention_mask.png` is a picture of it, drawn by `benchmarks/conversion.py`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vla.training.checks import require_kind, require_number, require_whole

_LEAST_NOISE = 1e-3
_UNSHIFTED = 0.5  # of the steps


@dataclass(frozen=True)
class Blocks:
    """How a model learns to fill in blocks.

    Attributes:
        actions: actions in a block at the end; the last block of a chunk is cut where the chunk ends.
        anneal: whether blocks grow during training, from one action, by factors of 2.
        complementary: whether each frame is shown twice, what is hidden one time being visible the other.
        drafts: share of blocks that are hidden entirely, as a block is when decoding begins to fill it in.
        noisy_weight: of the noisy streams' loss, in [0, 1]; the clean stream's has the rest.
        vision_efficient: whether noisy streams read the clean stream's prompt; else each has a copy of its own, which
            computes the same and takes more memory.
        shifted: whether in half of the steps blocks begin anywhere, not at multiples of their size from the chunk's
            beginning on: self-speculative decoding begins one wherever the last word was accepted.
        blind: share of the run in which images are hidden: the language model is converted first, then the whole
            model (two stages); 0 converts all of it at once.

    Raises:
        InputError: on a value outside its range.
    """

    actions: int
    anneal: bool
    complementary: bool
    drafts: float
    noisy_weight: float
    vision_efficient: bool
    shifted: bool
    blind: float

    def __post_init__(self) -> None:
        require_whole("blocks.actions", self.actions, 1)
        for name in ("anneal", "complementary", "vision_efficient", "shifted"):
            require_kind(f"blocks.{name}", getattr(self, name), bool, "true or false")
        require_number("blocks.drafts", self.drafts, below=1 + 1e-9)
        require_number("blocks.noisy_weight", self.noisy_weight, below=1 + 1e-9)
        require_number("blocks.blind", self.blind, below=1)

    def sizes(self) -> list[int]:
        """Actions in a block, stage by stage of the run."""
        if not self.anneal:
            return [self.actions]
        return [2**power for power in range(self.actions.bit_length()) if 2**power < self.actions] + [self.actions]

    def at(self, progress: float) -> int:
        """Actions in a block at `progress` in [0, 1] of the run."""
        sizes = self.sizes()
        return sizes[min(int(progress * len(sizes)), len(sizes) - 1)]

    def begin(self, block: int, generator: torch.Generator) -> int:
        """How many words the chunk's first block lacks, that is, where in a block of words the chunk begins."""
        if not self.shifted or torch.rand((), generator=generator) < _UNSHIFTED:
            return 0
        return int(torch.randint(block, (), generator=generator))


def clean_sees_clean(words: int) -> Tensor:
    """(words, words) bool, row sees column: itself and those before."""
    return torch.ones(words, words, dtype=torch.bool).tril()


def noisy_sees_clean(words: int, block: int, begin: int = 0) -> Tensor:
    """(words, words) bool: those of earlier blocks; the first block lacks its first `begin` words."""
    number = (torch.arange(words) + begin) // block
    return number[:, None] > number


def noisy_sees_noisy(words: int, block: int, begin: int = 0) -> Tensor:
    """(words, words) bool: those of its own block, in both directions."""
    number = (torch.arange(words) + begin) // block
    return number[:, None] == number


def visibility(prompt: int, words: int, block: int, streams: int, begin: int = 0) -> Tensor:
    """Who sees whom in [prompt][clean][noisy]…[noisy], (tokens, tokens) bool, row sees column.

    Training never makes this mask: each stream is computed against what it can see.
    """
    total = prompt + (1 + streams) * words
    seen = torch.zeros(total, total, dtype=torch.bool)
    seen[:prompt, :prompt] = clean_sees_clean(prompt)
    seen[prompt:, :prompt] = True
    clean = slice(prompt, prompt + words)
    seen[clean, clean] = clean_sees_clean(words)
    for number in range(streams):
        own = slice(clean.stop + number * words, clean.stop + (number + 1) * words)
        seen[own, clean] = noisy_sees_clean(words, block, begin)
        seen[own, own] = noisy_sees_noisy(words, block, begin)
    return seen


def hidden_words(
    batch: int, words: int, block: int, blocks: Blocks, generator: torch.Generator, begin: int = 0
) -> Tensor:
    """Which words the noisy streams do not show, (batch, streams, words) bool.

    The share of hidden words is drawn for each block. The first word of a block, and of the chunk, is always shown.
    """
    count = -(-(words + begin) // block)
    share = _LEAST_NOISE + (1 - _LEAST_NOISE) * torch.rand(batch, count, generator=generator)
    share[torch.rand(batch, count, generator=generator) < blocks.drafts] = 2.0  # above every number drawn below
    place = torch.arange(words) + begin
    drawn = torch.rand(batch, words, generator=generator) < share[:, place // block]
    streams = torch.stack([drawn, ~drawn] if blocks.complementary else [drawn], dim=1)
    return streams & (place % block != 0) & (place > begin)


def predicted_words(hidden: Tensor) -> Tensor:
    """(…, words) bool: rows of a noisy stream whose next word is hidden, so that they have to say it."""
    return torch.cat([hidden[..., 1:], torch.zeros_like(hidden[..., :1])], dim=-1)
