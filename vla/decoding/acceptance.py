"""Which hidden words of a block are certain enough to be written down: three rules.

Confidence threshold and top factor are Fast-dLLM's (arXiv 2505.22618), the entropy bound is that of transformers'
sampler for DiffusionGemma. All of them accept at least the most certain word, so that filling in a block ends.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor], Tensor]


def confidence(threshold: float) -> Rule:
    """Words whose likeliest id has at least this probability, in (0, 1]."""

    def accepts(logits: Tensor, hidden: Tensor) -> Tensor:
        certain = _certainty(logits, hidden)
        return ((certain >= threshold) | _best(certain)) & hidden

    return accepts


def factor(most: float) -> Rule:
    """The n most certain words for the largest n whose least probability p has (n + 1) (1 - p) <= `most`."""

    def accepts(logits: Tensor, hidden: Tensor) -> Tensor:
        certain, order = _certainty(logits, hidden).sort(dim=-1, descending=True)
        number = torch.arange(1, certain.shape[-1] + 1, device=certain.device)
        enough = ((number + 1) * (1 - certain) <= most).long()
        last = (enough * number).amax(dim=-1, keepdim=True).clamp(min=1)  # the largest n that fits
        return _unsorted(number <= last, order) & hidden

    return accepts


def entropy(bound: float) -> Rule:
    """The n words of least entropy for the largest n whose entropies [nat], the largest left out, add up to `bound`."""

    def accepts(logits: Tensor, hidden: Tensor) -> Tensor:
        spread = torch.distributions.Categorical(logits=logits.float(), validate_args=False).entropy()
        spread, order = spread.masked_fill(~hidden, torch.inf).sort(dim=-1)
        before = (spread.cumsum(dim=-1) - spread).nan_to_num(torch.inf)
        return _unsorted(before <= bound, order) & hidden

    return accepts


RULES: dict[str, Callable[[float], Rule]] = {"confidence": confidence, "factor": factor, "entropy": entropy}


def _certainty(logits: Tensor, hidden: Tensor) -> Tensor:
    """(batch, words) probability of the likeliest id; -1 at words that are not hidden."""
    return logits.float().softmax(dim=-1).amax(dim=-1).masked_fill(~hidden, -1.0)


def _best(certain: Tensor) -> Tensor:
    return torch.zeros_like(certain, dtype=torch.bool).scatter(-1, certain.argmax(dim=-1, keepdim=True), True)


def _unsorted(accepted: Tensor, order: Tensor) -> Tensor:
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, accepted)
