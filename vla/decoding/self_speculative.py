"""Self-speculation: the model fills in a block as a draft, then reads it word by word and keeps what it agrees with.

Fast-dVLM (arXiv 2604.06832), linear variant: one pass drafts all words of a block in both directions, one causal pass
verifies them. What comes out is what greedy decoding gives, however bad the drafts are. Without `redraft` a wrong word
costs no new draft: what the verifying pass said of the words behind it goes on as their draft, as in Jacobi decoding.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate.stages import Decoding
from vla.api import InputError
from vla.decoding.decoder import Decoder, Pen, Relaxed, verified
from vla.decoding.limits import check_block, check_relax, needs_mask


@dataclass(frozen=True)
class SelfSpeculative(Decoding):
    """Draft blocks, verify them.

    Args:
        block: words in a block, the one that is known before it included; None: as many as are left.
        redraft: whether the words behind a wrong one are drafted again, as published; else one pass less is needed.
        relax: bins that a draft may be off; above 0 decoding is no longer exact.

    Raises:
        InputError: on a value outside its range.
    """

    block: int | None = None
    redraft: bool = True
    relax: int = 0
    IDENTITY: ClassVar[None] = None  # the same words, but read several at once: rounding may differ

    def __post_init__(self) -> None:
        super().__post_init__()
        check_relax("self_speculative", self.relax)
        if not isinstance(self.redraft, bool):
            raise InputError(f"decoding=self_speculative: redraft must be true or false, got {self.redraft!r}")

    def unfit(self, model: Any) -> str | None:
        return super().unfit(model) or needs_mask(model) or check_block(self.block, model)

    def decoder(self) -> Decoder:
        return Decoder(self._write, self.cache)

    def _write(self, pen: Pen, count: int) -> Tensor:
        known = pen.following()
        draft = known[:, :0]
        while (left := count - known.shape[1]) > 0:
            newest = known[:, -1:]
            draft = draft[:, : left - 1]
            guesses = min(left, self.block or count) - 1
            if guesses and (self.redraft or not draft.shape[1]):
                masks = torch.full_like(newest, pen.mask).expand(-1, guesses)
                draft = pen.likeliest(pen.peek(torch.cat([newest, masks], dim=1))[:, :guesses])
            words, rest = verified(pen, newest, draft, Relaxed(self.relax))
            draft = rest[:, :0] if self.redraft else rest
            known = torch.cat([known, words], dim=1)
        return known


TECHNIQUE = SelfSpeculative
