"""VisionZip: the patches that the encoder itself attends to, and the others summed up in a few (arXiv 2412.04467)."""

from dataclasses import dataclass
from functools import partial
from typing import Any

from vla.accelerate.reduction.budgets import fixed
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.options import amount, check_choice, check_range
from vla.accelerate.reduction.summing_up import ADD, COMBINE, summed_up
from vla.accelerate.stages import TokenReduction
from vla.api import InputError


@dataclass(frozen=True)
class VisionZip(TokenReduction):
    """Between vision tower and projector, whatever the instruction.

    What matters is the row of the class token in the tower's last block; where there is none, the attention that a
    patch gets on average, of that one block.

    Args:
        budget: tokens of each camera that stay, dominant and contextual; the same for all cameras.
        contextual: share of them that sums up the others; published: 10 of 64, 20 of 128, 30 of 192.
        combine: "add": anchor plus mean of what is like it, as published; "mean": mean of all.
    """

    budget: Any = 0.5
    contextual: float = 0.15625
    combine: str = ADD

    def __post_init__(self) -> None:
        fixed(self.method, self.budget)
        check_range(self.method, "contextual", self.contextual, 0, 1)
        check_choice(self.method, "combine", self.combine, COMBINE)

    @property
    def statistics(self) -> bool:
        return True

    def calls(self, layout: Layout) -> list[Call]:
        return [Call(Point.FEATURES, 0, self._bind)]

    def _bind(self, layout: Layout) -> Bound:
        return summing(self.method, self.budget, self.contextual, None, self.combine, layout)


def summing(method: str, budget: Any, contextual: float, width: int | None, combine: str, layout: Layout) -> Bound:
    """Dominant and contextual tokens at one point; nothing runs if everything stays."""
    now = layout.same(method)
    counts = fixed(method, budget).counts(layout.counts)
    if len(set(counts)) > 1:
        raise InputError(f"{method} acts on single images: give all cameras the same budget, got {list(counts)}")
    if counts == layout.counts:
        return Bound(layout, None)
    few = min(amount(contextual, counts[0]), counts[0]) if contextual else 0
    assert counts[0] < now
    return Bound(
        layout.left(counts), partial(summed_up, dominant=counts[0] - few, contextual=few, width=width, combine=combine)
    )


TECHNIQUE = VisionZip
