"""FEATHER: a coarse grid that always stays, and what attention without positions points at (arXiv 2412.13180).

With rotary positions the last token prefers what is nearest, the bottom of the image; tasks that need to know where
things are suffer most. The published union of grid and ranking has as many tokens as the two happen not to share; here
the ranking goes on until that number is always the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from vla.accelerate.reduction.budgets import fixed
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.options import check_amount, check_choice, check_count, check_flag, layer_number
from vla.accelerate.reduction.probe import ROWS, TEXT
from vla.accelerate.reduction.seen import Seen, top
from vla.accelerate.reduction.selecting import Ranking, Selector, bound


@dataclass(frozen=True)
class Feather(Ranking):
    """Two stages in front of two language layers.

    Args:
        budget: tokens of the first stage beyond the grid.
        layer: of the first stage; published: 8 of 32.
        stride: of the grid, along both axes; None: no grid.
        second: tokens that the second stage keeps; None: there is none. Published 0.09, too few for control.
        second_layer: published: 16 of 32.
        second_stride: of the grid that always stays in the second stage; published: None.
        rows: whose attention: "text": all tokens after the visual ones, or "last", as published.
        rope: whether positions take part in it.
        image_only: whether the softmax is over one camera's tokens alone.
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {"budget": "all", "second": None}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.25, "second": 0.5}
    budget: Any = 0.3
    layer: Any = 0.25
    stride: int | None = 3
    second: Any = 0.3
    second_layer: Any = 0.5
    second_stride: int | None = 5
    rows: str = TEXT
    rope: bool = False
    image_only: bool = True

    def __post_init__(self) -> None:
        Selector.__post_init__(self)  # budgets are numbers
        check_amount(self.method, "layer", self.layer, least=1)
        for name in ("stride", "second_stride"):
            if getattr(self, name) is not None:
                check_count(self.method, name, getattr(self, name), 1)
        if self.second is not None:
            replace(self, budget=self.second, second=None)
        check_amount(self.method, "second_layer", self.second_layer, least=1)
        check_choice(self.method, "rows", self.rows, ROWS)
        for name in ("rope", "image_only"):
            check_flag(self.method, name, getattr(self, name))

    def scores(self, seen: Seen) -> Tensor:
        return seen.attention(self.rows, rope=self.rope, apart=self.image_only)

    def calls(self, layout: Layout) -> list[Call]:
        stages = [Call(Point.SEQUENCE, self.place(layout), partial(self._stage, self.budget, self.stride))]
        if self.second is not None:
            layer = layer_number(self.method, self.second_layer, layout.depth)
            stages.append(Call(Point.SEQUENCE, layer, partial(self._stage, self.second, self.second_stride)))
        return stages

    def _stage(self, budget: Any, stride: int | None, layout: Layout) -> Bound:
        ranked = fixed(self.method, budget).counts(layout.counts)
        height, width = layout.grid
        grid = 0 if stride is None else -(-height // stride) * -(-width // stride)
        counts = tuple(min(count + grid, now) for count, now in zip(ranked, layout.counts, strict=True))
        return bound(self.method, partial(self._grid_and_ranked, stride), counts, layout)

    def _grid_and_ranked(self, stride: int | None, seen: Seen, count: int) -> Tensor:
        scores = self.scores(seen)
        if stride is not None:
            width = seen.grid[1]
            on_grid = (seen.patches // width % stride == 0) & (seen.patches % width % stride == 0)
            scores = scores.masked_fill(on_grid, float("inf"))
        return top(scores, count)


TECHNIQUE = Feather
