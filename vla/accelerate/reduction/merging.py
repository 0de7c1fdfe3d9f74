"""Merging patches inside a vision tower: which go together, their means weighted by size, and who went where.

ToMe (arXiv 2210.09461): tokens are split in turns into A and B, and the most alike pairs become one. A merged token
counts as often as it has patches: log(size) is added to the attention logits of its column.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

SELECT = "select"  # the part of an answer that choosing and merging tokens takes


class Merge(NamedTuple):
    """Patches becoming fewer after the attention of one block.

    Attributes:
        block: its number.
        owner: (rows, tokens) int64: the new token that each goes into.
        survivors: (rows, fewer) int64 ascending: the token at whose position each new one stands.
        weights: (rows, tokens) float32: how much a token counts in its new one.
    """

    block: int
    owner: Tensor
    survivors: Tensor
    weights: Tensor

    def mean(self, hidden: Tensor, first: int) -> Tensor:
        """Weighted means of what merges, (rows, first + tokens, width) -> (rows, first + fewer, width).

        On a GPU by a matrix: there sums in place come in any order, and answers would differ from run to run.
        """
        if hidden.device.type != "cpu":
            return self.pooling(first, hidden.dtype) @ hidden
        rows, fewer = self.survivors.shape
        sums = self.weights.new_zeros(rows, fewer).scatter_add(1, self.owner, self.weights)
        shares = (self.weights / sums.gather(1, self.owner)).to(hidden.dtype)
        slot = self.owner + fewer * torch.arange(rows)[:, None]
        made = hidden.new_zeros(rows * fewer, hidden.shape[-1])
        made.index_add_(0, slot.flatten(), (hidden[:, first:] * shares[..., None]).flatten(0, 1))
        return torch.cat([hidden[:, :first], made.unflatten(0, (rows, fewer))], dim=1)

    def pooling(self, first: int, dtype: torch.dtype) -> Tensor:
        """The matrix whose rows are means, (rows, first + fewer, first + tokens); the first tokens stay."""
        weights = functional.pad(self.weights, (first, 0), value=1.0)
        pool = self._spread(weights, first)
        return (pool / pool.sum(dim=-1, keepdim=True)).to(dtype)

    def joining(self, first: int, dtype: torch.dtype) -> Tensor:
        """The same of sums: a matrix of ones and zeros."""
        return self._spread(torch.ones_like(functional.pad(self.weights, (first, 0))), first).to(dtype)

    def _spread(self, weights: Tensor, first: int) -> Tensor:
        """(rows, first + fewer, first + tokens) with a weight where a token goes, and zeros."""
        rows, tokens = self.owner.shape
        stay = torch.arange(first, device=self.owner.device).expand(rows, -1)
        owner = torch.cat([stay, first + self.owner], dim=1)
        nothing = weights.new_zeros(rows, first + self.survivors.shape[1], first + tokens)
        return nothing.scatter(1, owner[:, None], weights[:, None])


class Merger(Protocol):
    """Decides what merges.

    Attributes:
        merges: block -> how many patches fewer there are after it.
        of_attention: whether it needs the attention before it merges, which is then merged itself (MCTF).
    """

    @property
    def merges(self) -> dict[int, int]: ...

    @property
    def of_attention(self) -> bool: ...

    def merge(
        self, block: int, count: int, features: Tensor, keys: Tensor, received: Tensor | None, patches: "Patches"
    ) -> Merge:
        """The next merge.

        Args:
            block, count: where, and how many patches fewer.
            features: (rows, tokens, width) of the patches.
            keys: (rows, tokens, dim) of the block's attention, mean over heads.
            received: (rows, tokens) float32 attention that each patch gets; None unless `of_attention`.
            patches: how the patches were merged so far.
        """
        ...


class Patches:
    """What became of the patches of some images on their way through a tower.

    Attributes:
        index: (rows, tokens) int64: the patch at whose position each token stands.
        owner: (rows, patches) int64: the token that each patch is in; None while each is its own.
        sizes: (rows, tokens) float32 patches in each token; None while each has one.
    """

    def __init__(self, count: int, rows: int, device: torch.device) -> None:
        self.index = torch.arange(count, device=device).expand(rows, -1)
        self.owner: Tensor | None = None
        self.sizes: Tensor | None = None

    def size(self) -> Tensor:
        """(rows, tokens) float32."""
        return self.sizes if self.sizes is not None else torch.ones_like(self.index, dtype=torch.float32)

    def bias(self, first: int, dtype: torch.dtype) -> Tensor | None:
        """log(size) for the attention's logits, (rows, 1, 1, first + tokens); None while all sizes are one."""
        if self.sizes is None:
            return None
        return functional.pad(self.sizes.log(), (first, 0))[:, None, None].to(dtype)

    def merged(self, hidden: Tensor, first: int, merge: Merge) -> Tensor:
        """The tokens (rows, first + tokens, width) after a merge, which is taken note of."""
        fewer = self.size().new_zeros(merge.survivors.shape)
        self.sizes = fewer.scatter_add(1, merge.owner, self.size())
        self.index = self.index.gather(1, merge.survivors)
        self.owner = merge.owner if self.owner is None else merge.owner.gather(1, self.owner)
        return merge.mean(hidden, first)


@dataclass(frozen=True)
class Match:
    """Where tokens go: (rows, tokens) int64, each token's own number where it stays."""

    target: Tensor

    def merge(self, block: int, fewer: int, weights: Tensor) -> Merge:
        """As a merge after which there are `fewer` tokens less."""
        every = torch.arange(self.target.shape[1], device=self.target.device)
        stays = self.target == every
        slot = stays.long().cumsum(dim=1) - 1
        gone_last = (~stays).long().argsort(dim=1, stable=True)
        return Merge(block, slot.gather(1, self.target), gone_last[:, : len(every) - fewer], weights)


def even_to_odd(likeness: Tensor, count: int) -> Match:
    """The `count` even tokens that are most like an odd one go there.

    Args:
        likeness: (rows, even tokens, odd tokens).
    """
    rows, evens, odds = likeness.shape
    best, where = likeness.max(dim=-1)
    chosen = best.argsort(dim=-1, descending=True, stable=True)[:, :count]  # (rows, count) among the even
    every = torch.arange(evens + odds, device=likeness.device).expand(rows, -1)
    return Match(every.scatter(1, 2 * chosen, 2 * where.gather(1, chosen) + 1))


def pairs(tokens: Tensor) -> Tensor:
    """Cosine of every even with every odd token of (rows, tokens, dim), (rows, even, odd) float32."""
    unit = functional.normalize(tokens.float(), dim=-1)
    return unit[:, ::2] @ unit[:, 1::2].transpose(-1, -2)
