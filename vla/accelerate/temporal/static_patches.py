"""Reads again only the patches that changed since they were last read, in the vision tower (after VLA-Cache).

VLA-Cache (arXiv 2502.02175) calls a patch static if its pixels' cosine with the earlier frame is at least 0.996, takes
out of the static ones what the text attended to in the step before, and reuses the rest in the language model, as
`static_tokens` does. Here only the vision tower reuses patches: those that are static keep their keys and values in
every block, and only the others go through it. How many go is one of eight numbers, the smallest that is enough; when
more have changed than the greatest, when the gripper moves, or after a number of steps, the whole image is read.

A patch is compared with the frame it was last read from, not with the frame before, so slow changes add up to be seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vla.accelerate.lean.decoder import Tokens
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.probe import TEXT
from vla.accelerate.stages import Memory, Temporal, TokenReduction
from vla.accelerate.temporal.sessions import Rules, Sessions
from vla.api import InputError
from vla.models.family import ActionModel


@dataclass(frozen=True)
class StaticPatches(Temporal):
    """Reads the patches that changed, and now and then all.

    Args:
        budget, threshold, every, gripper, relevant: see `vla.accelerate.temporal.sessions.Rules`; a budget of 1.0
            reads all patches in every step.
        layer: where in the language model the instruction's attention is taken, as a share of its depth.

    Raises:
        InputError: on a value outside its range.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"budget": 0.5, "relevant": 0.25}
    budget: float = 1.0
    threshold: float = 0.996
    relevant: float = 0.1
    layer: float = 0.5
    every: int = 8
    gripper: float = 0.1

    def __post_init__(self) -> None:
        self._rules.check(self.method)
        number = isinstance(self.layer, int | float) and not isinstance(self.layer, bool)
        if not number or not 0 <= self.layer <= 1:
            raise InputError(f"temporal=static_patches: layer must be a share up to 1, got {self.layer!r}")
        if self.relevant > self.budget:
            raise InputError(
                f"temporal=static_patches: relevant={self.relevant} patches do not fit into budget={self.budget}"
            )

    @property
    def _rules(self) -> Rules:
        return Rules(self.budget, self.threshold, self.every, self.gripper, self.relevant)

    def unfit(self, model: ActionModel) -> str | None:
        if self.budget < 1 and self.relevant > 0 and len(model.decoders[0].layers) < 2:
            return "it has one language layer, before which there is no attention to take; set relevant: 0.0"
        return None

    def remembering(self, model: ActionModel) -> tuple[Memory, TokenReduction | None] | None:
        if self.budget == 1:
            return None
        sessions = Sessions(self._rules, model.config.patch_size)
        if self.relevant == 0:
            return sessions, None
        depth = len(model.decoders[0].layers)
        return sessions, Watch(sessions, min(max(1, round(self.layer * depth)), depth - 1))


@dataclass(frozen=True)
class Watch(TokenReduction):
    """Takes no token out; notes which of them the instruction attends to.

    Attributes:
        sessions: what is told.
        layer: in front of which it stands; the attention is that of the layer before.
    """

    sessions: Sessions
    layer: int

    def calls(self, layout: Layout) -> Sequence[Call]:
        return [Call(Point.SEQUENCE, self.layer, lambda now: Bound(now, lambda tokens: self._note(layout, tokens)))]

    def _note(self, full: Layout, tokens: Tokens) -> Tokens:
        sight, probe = tokens.sight, tokens.probe
        assert sight is not None
        assert probe is not None
        columns = slice(sight.start, sight.end)
        seen = probe.attention(TEXT, sight.end, columns, rope=True, apart=True)  # (batch, visual tokens left)
        counts = torch.tensor(sight.layout.counts, device=seen.device)
        camera = torch.arange(len(counts), device=seen.device).repeat_interleave(counts)
        everywhere = seen.new_zeros(len(seen), len(counts) * full.patches)
        self.sessions.note(everywhere.scatter(1, camera * full.patches + sight.patches, seen))
        return tokens


TECHNIQUE = StaticPatches
