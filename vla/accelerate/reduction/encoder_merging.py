"""Base of methods that merge patches block by block inside the vision tower."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vla.accelerate.reduction.budgets import fixed
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.merging import Merger
from vla.accelerate.reduction.options import ALL, amount, check_amount
from vla.accelerate.stages import TokenReduction
from vla.api import InputError


@dataclass(frozen=True)
class Merging(TokenReduction):
    """Merges about as many patches in each of some blocks.

    Args:
        budget: tokens of each camera that are left after the tower; the same for all cameras.
        first: block with the first merge, counted from 0; or share of the blocks that stay whole.
        blocks: how many blocks merge, or which share of those from the first on: the fewer, the sooner tokens are few
            and the choice is made once, but by what the tower knew early.
        proportional: whether the language model's attention, too, counts a token once for each of its patches, as the
            tower's does (ToMe's proportional attention): log(size) is added to the logits of its column. Without it, a
            language model that saw all patches in training looks too little at merged tokens.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.75}
    budget: Any = ALL
    first: Any = 0.34
    blocks: Any = ALL
    proportional: bool = False

    def __post_init__(self) -> None:
        fixed(self.method, self.budget)
        check_amount(self.method, "first", self.first)
        check_amount(self.method, "blocks", self.blocks, 1)
        if not isinstance(self.proportional, bool):
            raise InputError(f"{self.method}: proportional must be true or false, got {self.proportional!r}")

    @property
    def counted(self) -> bool:
        return self.proportional

    def merger(self, merges: dict[int, int]) -> Merger:
        """What merges.

        Args:
            merges: block -> how many patches fewer there are after it.
        """
        raise NotImplementedError

    def calls(self, layout: Layout) -> list[Call]:
        return [Call(Point.ENCODER, 0, self._bind)]

    def _bind(self, layout: Layout) -> Bound:
        layout.same(self.method)
        counts = fixed(self.method, self.budget).counts(layout.counts)
        if len(set(counts)) > 1:
            raise InputError(f"{self.method} acts on single images: give all cameras one budget, got {list(counts)}")
        if counts == layout.counts:
            return Bound(layout, None)
        first = self._first(layout.blocks)
        last = min(first + amount(self.blocks, layout.blocks - first), layout.blocks)
        merges = schedule(self.method, layout.counts[0], counts[0], first, last)
        return Bound(layout.left(counts), self.merger(merges))

    def _first(self, blocks: int) -> int:
        first = int(self.first * blocks) if isinstance(self.first, float) else amount(self.first, blocks)
        if first >= blocks:
            raise InputError(f"first {self.first!r} leaves no block to merge in; this tower has {blocks}")
        return first


def schedule(method: str, tokens: int, left: int, first: int, end: int) -> dict[int, int]:
    """Block -> merges, as even as can be from block `first` on and before `end`.

    Raises:
        InputError: if a block would have to merge more than half of its tokens.
    """
    merges, now = {}, tokens
    for block in range(first, end):
        count = -(-(now - left) // (end - block))
        if count > now // 2:
            raise InputError(
                f"{method} halves the tokens at most once a block: budget {left} of {tokens} is too few for the "
                f"{end - first} blocks from {first} on"
            )
        if count:
            merges[block] = count
        now -= count
    return merges
