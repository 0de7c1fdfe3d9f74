"""EfficientVLA's tokens: some that matter to the task, and some that look like none of these (arXiv 2506.10100, §3.3).

The paper writes attention from a visual token to the text, which is nothing in a causal model whose images come first;
here it is that of the text, and of what follows it, to the visual tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.options import check_amount, check_count, check_range, layer_number
from vla.accelerate.reduction.probe import TEXT
from vla.accelerate.reduction.seen import Seen
from vla.accelerate.reduction.selecting import Selector


@dataclass(frozen=True)
class EfficientVla(Selector):
    """K_key most relevant tokens, then a share `alpha` of the rest by relevance, then the ones least like the K_key.

    Args:
        budget: published: 56 or 112 of 256.
        key_tokens: K_key, at most the budget.
        alpha: share of the tokens beyond K_key that is chosen by relevance.
        layer: in front of which language layer; published: 2, after two full ones.
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {"budget": "all", "layer": 0.5}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.5, "layer": 0.5}
    budget: Any = 56
    key_tokens: int = 4
    alpha: float = 0.5
    layer: Any = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.method, "key_tokens", self.key_tokens, 1)
        check_range(self.method, "alpha", self.alpha, 0, 1)
        check_amount(self.method, "layer", self.layer, least=1)

    def place(self, layout: Layout) -> int:
        return layer_number(self.method, self.layer, layout.depth)

    def choose(self, seen: Seen, count: int) -> Tensor:
        relevance = seen.attention(TEXT, rope=True, apart=False)
        return relevant_and_diverse(relevance, seen.tokens, count, self.key_tokens, self.alpha)


def relevant_and_diverse(relevance: Tensor, tokens: Tensor, count: int, key_tokens: int, alpha: float) -> Tensor:
    """EfficientVLA, eq. 3 to 5, for rows of (rows, n) relevance and (rows, n, width) tokens.

    Returns:
        (rows, count) int64 indices, ascending.
    """
    keys = min(key_tokens, count)
    more = count - keys
    task = int(alpha * more)
    order = relevance.argsort(dim=-1, descending=True, stable=True)
    chosen, rest = order[:, : keys + task], order[:, keys + task :]
    unit = functional.normalize(tokens.float(), dim=-1)
    each = torch.arange(len(order), device=order.device)[:, None]
    likeness = (unit @ unit[each, order[:, :keys]].transpose(-1, -2)).max(dim=-1).values  # (rows, n)
    least_alike = likeness.gather(1, rest).argsort(dim=-1, stable=True)[:, : more - task]
    return torch.cat([chosen, rest.gather(1, least_alike)], dim=1).sort(dim=-1).values


TECHNIQUE = EfficientVla
