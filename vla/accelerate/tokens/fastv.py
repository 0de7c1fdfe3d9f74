"""FastV: drop once, early in the language model, what the last token looks at least (arXiv 2403.06764)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vla.accelerate.reduction.options import check_choice, check_flag
from vla.accelerate.reduction.probe import LAST, ROWS
from vla.accelerate.reduction.seen import Seen
from vla.accelerate.reduction.selecting import Ranking


@dataclass(frozen=True)
class FastV(Ranking):
    """Keeps the tokens that got the most attention in the layer before.

    Args:
        layer: K; the attention is that of layer K - 1, the tokens are gone from layer K on. Published: 2 or 3 of 32.
        rows: whose attention: "last", as published, or "text": all tokens after the visual ones.
        rope: whether it is the attention as the layer computes it; false leaves positions out.
        image_only: whether the softmax is over one camera's tokens alone.
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {"budget": "all", "layer": 0.5}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.5, "layer": 0.5}
    budget: Any = 0.5
    rows: str = LAST
    rope: bool = True
    image_only: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.method, "rows", self.rows, ROWS)
        check_flag(self.method, "rope", self.rope)
        check_flag(self.method, "image_only", self.image_only)

    def scores(self, seen: Seen) -> Tensor:
        return seen.attention(self.rows, rope=self.rope, apart=self.image_only)


TECHNIQUE = FastV
