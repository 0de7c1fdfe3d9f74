"""ToMe: merge the patches whose keys are most alike, a few in every block of the vision tower (arXiv 2210.09461)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vla.accelerate.reduction.encoder_merging import Merging
from vla.accelerate.reduction.merging import Merge, Merger, Patches, even_to_odd, pairs


@dataclass(frozen=True)
class ToMe(Merging):
    """Bipartite matching between attention and MLP, means weighted by size, attention in proportion to size."""

    budget: Any = 0.5

    def merger(self, merges: dict[int, int]) -> Merger:
        return ByKeys(merges)


@dataclass(frozen=True)
class ByKeys:
    """Merges by the cosine of keys.

    Args:
        merges: block -> how many patches fewer there are after it.
    """

    merges: dict[int, int]
    of_attention: bool = False

    def merge(
        self, block: int, count: int, features: Tensor, keys: Tensor, received: Tensor | None, patches: Patches
    ) -> Merge:
        """As `Merger.merge`."""
        return even_to_odd(pairs(keys), count).merge(block, count, patches.size())


TECHNIQUE = ToMe
