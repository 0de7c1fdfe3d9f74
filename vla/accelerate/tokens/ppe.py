"""PPE: a merged token keeps the positions of several of its patches, each in its own share of the frequencies (2025).

A position policy: it takes no token out, and changes nothing where no tokens were merged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate.reduction.calls import Bound, Call, Place, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.options import check_count
from vla.accelerate.stages import TokenReduction


@dataclass(frozen=True)
class Ppe(TokenReduction):
    """Positions of `groups` patches of each token, the last one first, over and over if it has fewer.

    Args:
        groups: K; 1: the position of one patch for all frequencies.
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {"groups": 1}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"groups": 2}
    groups: int = 8

    def __post_init__(self) -> None:
        check_count(self.method, "groups", self.groups, 1)

    def calls(self, layout: Layout) -> list[Call]:
        return [Call(Point.POSITIONS, 0, self._bind)]

    def _bind(self, layout: Layout) -> Bound:
        return Bound(layout, Place(self.groups, partial(patches_of, self.groups)))


def patches_of(groups: int, patches: Tensor, owner: Tensor | None) -> Tensor:
    """The patches at whose positions a token stands, (rows, tokens, groups) int64.

    Args:
        groups: how many for each.
        patches: (rows, tokens) int64, of tokens that are one patch each.
        owner: (rows, patches of the image) int64: the token that each patch went into, -1 for none; or None.
    """
    if owner is None:
        return patches[..., None].expand(-1, -1, groups)
    tokens = torch.arange(patches.shape[1], device=owner.device)
    member = owner[:, None] == tokens[:, None]  # (rows, tokens, patches)
    from_last = member.flip(-1).cumsum(dim=-1).flip(-1) - 1  # of members: how many come after
    wanted = torch.arange(groups, device=owner.device) % member.sum(dim=-1, keepdim=True).clamp(min=1)
    found = member[:, :, None] & (from_last[:, :, None] == wanted[..., None])  # (rows, tokens, groups, patches)
    return found.float().argmax(dim=-1)


TECHNIQUE = Ppe
