"""Block diffusion: hidden words of a block are filled in several at a time, the most certain first.

Fast-dLLM v2's and Fast-dVLM's sampler (arXiv 2509.26328, 2604.06832): words are predicted by the one before them, a
block's first word comes from the causal pass that writes the block before it into the cache, and within a block smaller
blocks are finished one after the other. Not exact: words that are written together do not see each other.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate.stages import Decoding
from vla.api import InputError
from vla.decoding.acceptance import RULES, Rule
from vla.decoding.decoder import Decoder, Pen
from vla.decoding.limits import check_block, check_positive, needs_mask


@dataclass(frozen=True)
class BlockDiffusion(Decoding):
    """Fill in blocks.

    Args:
        block: words in a block, a multiple of the numbers in an action; None: the whole chunk.
        sub_block: words of a block that are finished before those after them are looked at; None: all of the block.
        rule: how certain words have to be: `confidence`, `factor` or `entropy`, see `vla.decoding.acceptance`.
        threshold: of the rule `confidence`, in (0, 1]: least probability; 1 writes one word at a time.
        factor: of the rule `factor`, above 0.
        entropy: [nat] of the rule `entropy`, above 0.

    Raises:
        InputError: on a value outside its range.
    """

    block: int | None = None
    sub_block: int | None = None
    rule: str = "confidence"
    threshold: float = 0.9
    factor: float = 1.0
    entropy: float = 0.1
    IDENTITY: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rule, str) or self.rule not in RULES:
            raise InputError(f"decoding=block_diffusion: rule must be one of {', '.join(RULES)}, got {self.rule!r}")
        check_positive("block_diffusion", "threshold", self.threshold, most=1)
        check_positive("block_diffusion", "factor", self.factor)
        check_positive("block_diffusion", "entropy", self.entropy)

    def unfit(self, model: Any) -> str | None:
        return (
            super().unfit(model)
            or needs_mask(model)
            or check_block(self.block, model, whole_actions=True)
            or check_block(self.sub_block, model, "sub_block", self.block)
        )

    def decoder(self) -> Decoder:
        return Decoder(self._write, self.cache)

    def _write(self, pen: Pen, count: int) -> Tensor:
        size = self.block or count
        accepts = RULES[self.rule](getattr(self, "threshold" if self.rule == "confidence" else self.rule))
        newest, blocks = pen.following(), []
        for start in range(0, count, size):
            blocks.append(self._filled_in(pen, newest, min(size, count - start), accepts))
            if start + size < count:
                newest = pen.likeliest(pen.read(blocks[-1])[:, -1:])
                pen.accepted.append(1)
        return torch.cat(blocks, dim=1)

    def _filled_in(self, pen: Pen, newest: Tensor, size: int, accepts: Rule) -> Tensor:
        """(batch, size) int64 words of the block that begins with (batch, 1) `newest`."""
        words = torch.cat([newest, torch.full_like(newest, pen.mask).expand(-1, size - 1)], dim=1)
        step = self.sub_block or size
        for end in range(step, size + step, step):
            while bool((hidden := words[:, 1:end] == pen.mask).any()):
                logits = pen.peek(words)[:, : hidden.shape[1]]  # of the word after each
                written = accepts(logits, hidden)
                words[:, 1:end] = torch.where(written, pen.likeliest(logits), words[:, 1:end])
                pen.accepted.append(int(written.sum(dim=1).min()))
        return words


TECHNIQUE = BlockDiffusion
