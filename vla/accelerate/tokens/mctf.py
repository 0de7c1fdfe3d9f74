"""MCTF: merge patches that are alike, tell little and are small, both ways, attention included (arXiv 2403.10030).

The attention of a block is computed before its patches merge, says which of them matter, and is merged itself, so that
it is applied to the merged values without being computed again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vla.accelerate.reduction.encoder_merging import Merging
from vla.accelerate.reduction.merging import Match, Merge, Merger, Patches, even_to_odd, pairs
from vla.accelerate.reduction.options import check_range


@dataclass(frozen=True)
class Mctf(Merging):
    """Multi-criteria token fusion.

    Args:
        similarity, information, size: temperatures of the three criteria; the higher, the less one counts.
    """

    budget: Any = 0.5
    similarity: float = 1.0
    information: float = 20.0
    size: float = 40.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("similarity", "information", "size"):
            check_range(self.method, name, getattr(self, name), 1e-3, 1e6)

    def merger(self, merges: dict[int, int]) -> Merger:
        return ByCriteria(merges, (self.similarity, self.information, self.size))


@dataclass(frozen=True)
class ByCriteria:
    """Merges by likeness of features, attention received, and size.

    Args:
        merges: block -> how many patches fewer there are after it.
        temperatures: of the three.
    """

    merges: dict[int, int]
    temperatures: tuple[float, float, float]
    of_attention: bool = True

    def merge(
        self, block: int, count: int, features: Tensor, keys: Tensor, received: Tensor | None, patches: Patches
    ) -> Merge:
        """As `Merger.merge`."""
        assert received is not None
        size = patches.size()
        weights = likeness(features, received, size, self.temperatures)
        counted = received * size / size.max(dim=1, keepdim=True).values
        return both_ways(weights, count).merge(block, count, counted)


def likeness(features: Tensor, received: Tensor, size: Tensor, temperatures: tuple[float, float, float]) -> Tensor:
    """How much every even token should merge with every odd one, (rows, even, odd).

    Args:
        features: (rows, tokens, width).
        received: (rows, tokens) attention, above 0.
        size: (rows, tokens).
        temperatures: of similarity, information and size.
    """
    weights = ((pairs(features) + 1) / 2).clamp(min=0) ** (1 / temperatures[0])
    for value, temperature in ((received, temperatures[1]), (size, temperatures[2])):
        rare = value.min(dim=1, keepdim=True).values / value  # 1 / value over its maximum
        weights = weights * (rare[:, ::2, None] * rare[:, None, 1::2]) ** (1 / temperature)
    return weights


def both_ways(weights: Tensor, count: int) -> Match:
    """Half of the merges from even to odd tokens, then the others from odd tokens to the even ones that are left.

    Args:
        weights: (rows, even tokens, odd tokens).
        count: merges in all.
    """
    there, _, odds = weights.shape[1], *weights.shape[1:]
    forth = min(count // 2, there - 1)
    back = min(count - forth, odds)
    match = even_to_odd(weights, count - back)
    every = torch.arange(match.target.shape[1], device=weights.device)
    gone = (match.target != every)[:, ::2, None]
    best, where = weights.masked_fill(gone, -1).max(dim=1)  # each (rows, odd tokens)
    chosen = best.argsort(dim=-1, descending=True, stable=True)[:, :back]
    target = match.target.scatter(1, 2 * chosen + 1, 2 * where.gather(1, chosen))
    return Match(target.gather(1, target))  # what went to an odd token goes on with it


TECHNIQUE = Mctf
