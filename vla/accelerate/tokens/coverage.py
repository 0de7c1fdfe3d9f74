"""Coverage: keep the tokens that together stand for the instruction and for the whole image (MMTok, arXiv 2508.18264).

Ranking keeps ten views of one mug; covering keeps the mug once and the towel too. With the other objectives it is the
first stage of CATP (2025), or DivPrune's max-min diversity (arXiv 2503.02175).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.reduction.greedy import farthest, greedy_cover
from vla.accelerate.reduction.options import check_choice, check_range
from vla.accelerate.reduction.seen import Seen
from vla.accelerate.reduction.selecting import Selector


@dataclass(frozen=True)
class Coverage(Selector):
    """Greedy choice after the projector. All words of the prompt count, those of its template too.

    Args:
        budget: MMTok's default is 64 of 576.
        objective: "mmtok": cover words and image; "catp": cover the image, and be like the instruction; "divprune":
            be far from each other.
        image_weight: MMTok's alpha: of covering the image against covering the words.
        text_temperature, image_temperature: MMTok's, of "this word is about that patch" and of "these are alike".
        alignment: CATP's lambda.
    """

    budget: Any = 0.25
    objective: str = "mmtok"
    image_weight: float = 0.5
    text_temperature: float = 0.02
    image_temperature: float = 0.2
    alignment: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.method, "objective", self.objective, list(_OBJECTIVES))
        for name in ("text_temperature", "image_temperature"):
            check_range(self.method, name, getattr(self, name), 1e-4, 1e4)
        for name in ("image_weight", "alignment"):
            check_range(self.method, name, getattr(self, name), 0, 1e6)

    @property
    def features(self) -> bool:
        return self.objective == "mmtok"

    def choose(self, seen: Seen, count: int) -> Tensor:
        return _OBJECTIVES[self.objective](self, seen, count)


def _mmtok(options: Coverage, seen: Seen, count: int) -> Tensor:
    words, spoken = seen.words
    said = spoken[..., None].float() / spoken.sum(dim=1).clamp(min=1)[:, None, None]
    about = (_cosine(words, seen.tokens) / options.text_temperature).softmax(dim=-1) * said  # (rows, words, n)
    alike = (_cosine(seen.features, seen.features) / options.image_temperature).softmax(dim=-1)
    image = options.image_weight / alike.shape[-1] * alike  # (rows, n, n)
    return greedy_cover(torch.cat([about, image], dim=1).transpose(1, 2).contiguous(), count)


def _catp(options: Coverage, seen: Seen, count: int) -> Tensor:
    words, spoken = seen.words
    mean = (words * spoken[..., None]).sum(dim=1, keepdim=True) / spoken.sum(dim=1).clamp(min=1)[:, None, None]
    aligned = (_cosine(seen.tokens, mean)[..., 0] + 1) / 2  # (rows, n)
    return greedy_cover((_cosine(seen.tokens, seen.tokens) + 1) / 2, count, options.alignment * aligned)


def _divprune(options: Coverage, seen: Seen, count: int) -> Tensor:
    return farthest(1 - _cosine(seen.tokens, seen.tokens), count)


_OBJECTIVES: dict[str, Callable[[Coverage, Seen, int], Tensor]] = {
    "mmtok": _mmtok,
    "catp": _catp,
    "divprune": _divprune,
}


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """(rows, n, d) with (rows, m, d), (rows, n, m) float32."""
    one, other = (functional.normalize(each.float(), dim=-1) for each in (first, second))
    return one @ other.transpose(-1, -2)


TECHNIQUE = Coverage
