"""DUET-VLM: sum up what the encoder deems unimportant, then drop by what the text looks at (2025, after VisionZip).

First as VisionZip, but the contextual tokens are made of the next most important patches only. Then, in front of later
language layers, tokens are ranked by the attention that all tokens after the visual ones would pay them in that layer.
The published choice of salient words by part of speech is left out: it needs a tagger in every control step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from vla.accelerate.reduction.budgets import fixed
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.options import amount, check_amount, check_choice, check_count, check_range, layer_number
from vla.accelerate.reduction.probe import ROWS, TEXT
from vla.accelerate.reduction.seen import Seen, top
from vla.accelerate.reduction.selecting import bound
from vla.accelerate.reduction.summing_up import ADD, COMBINE
from vla.accelerate.stages import TokenReduction
from vla.accelerate.tokens.visionzip import summing
from vla.api import InputError


@dataclass(frozen=True)
class Duet(TokenReduction):
    """Two stages.

    Args:
        budget: tokens after the first stage; published: 307 of 576 for 192 on average.
        contextual: share of them that sums up others; published: 7 of 307.
        width: of how many patches each of these is made.
        combine: "add": anchor plus mean of what is like it, as published; "mean": mean of all.
        layers: of the second stage; published: 16 and 24 of 32.
        ratios: share of the tokens that stays there; published: 0.5 and 0.0.
        rows: whose attention: "text": all tokens after the visual ones, or "last".
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {"budget": "all", "layers": [], "ratios": []}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.5}
    budget: Any = 0.533
    contextual: float = 0.0228
    width: int = 4
    combine: str = ADD
    layers: tuple[Any, ...] = (0.5, 0.75)
    ratios: tuple[float, ...] = (0.5, 0.5)
    rows: str = TEXT

    def __post_init__(self) -> None:
        fixed(self.method, self.budget)
        check_range(self.method, "contextual", self.contextual, 0, 1)
        check_count(self.method, "width", self.width, 1)
        check_choice(self.method, "combine", self.combine, COMBINE)
        check_choice(self.method, "rows", self.rows, ROWS)
        for name in ("layers", "ratios"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple):
                raise InputError(f"tokens={self.method}: {name} must be a list, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        if len(self.layers) != len(self.ratios):
            raise InputError(f"tokens={self.method}: {len(self.layers)} layers need as many ratios, got {self.ratios}")
        for layer, ratio in zip(self.layers, self.ratios, strict=True):
            check_amount(self.method, "layers", layer, least=1)
            check_range(self.method, "ratios", ratio, 0, 1)

    @property
    def statistics(self) -> bool:
        return True

    def calls(self, layout: Layout) -> list[Call]:
        later = [
            Call(Point.SEQUENCE, layer_number(self.method, layer, layout.depth), partial(self._drop, ratio))
            for layer, ratio in zip(self.layers, self.ratios, strict=True)
        ]
        return [Call(Point.FEATURES, 0, self._sum_up), *later]

    def _sum_up(self, layout: Layout) -> Bound:
        return summing(self.method, self.budget, self.contextual, self.width, self.combine, layout)

    def _drop(self, ratio: float, layout: Layout) -> Bound:
        counts = tuple(amount(float(ratio), count) if ratio else 0 for count in layout.counts)
        return bound(self.method, self._choose, counts, layout)

    def _choose(self, seen: Seen, count: int) -> Tensor:
        return top(seen.attention(self.rows, rope=True, apart=False, layer="next"), count)


TECHNIQUE = Duet
