"""Bases of methods that keep some visual tokens as they are: a budget, a place, and a choice."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vla.accelerate.lean.decoder import Tokens
from vla.accelerate.reduction.budgets import Fixed, Mass, Measured, Table, budget_of, fixed
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.falling import falling_table
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.options import ALL, check_amount, layer_number
from vla.accelerate.reduction.seen import Seen, alike, keep, taken, top
from vla.accelerate.stages import TokenReduction
from vla.api import InputError
from vla.calibration.stored import COMMAND
from vla.models.family import ActionModel


@dataclass(frozen=True)
class Selector(TokenReduction):
    """Keeps some tokens of each camera, chosen after the projector or in front of a language layer.

    Args:
        budget: tokens of each camera that stay: a whole number, a share, or "all"; a list has one for each camera.
    """

    budget: Any = ALL

    def __post_init__(self) -> None:
        fixed(self.method, self.budget)

    def choose(self, seen: Seen, count: int) -> Tensor:
        """(rows, count) int64 indices of the tokens that stay, ascending."""
        raise NotImplementedError

    def place(self, layout: Layout) -> int:
        """The language layer in front of which it acts; 0: after the projector."""
        return 0

    def calls(self, layout: Layout) -> list[Call]:
        return [Call(Point.SEQUENCE, self.place(layout), self._bind)]

    def _bind(self, layout: Layout) -> Bound:
        counts = fixed(self.method, self.budget).counts(layout.counts)
        return bound(self.method, self.choose, counts, layout)


@dataclass(frozen=True)
class Anywhere(Selector):
    """Chooses without attention, so it may act after the projector or in front of any layer.

    Args:
        layer: in front of which language layer, a whole number or a share of the depth; None: after the projector.
    """

    layer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None:
            check_amount(self.method, "layer", self.layer, least=1)

    def place(self, layout: Layout) -> int:
        return 0 if self.layer is None else layer_number(self.method, self.layer, layout.depth)


@dataclass(frozen=True)
class Ranking(Selector):
    """Keeps the tokens with the highest scores, in front of one language layer.

    Args:
        budget: as every selector's; or {mass: share, buckets: [counts]}: as many as carry that share of the scores;
            or {table: [amounts]}: fewer from layer to layer, and `layer` says nothing; or {measured: share}: the table
            by the checkpoint's calibration with which all layers together keep that share of their tokens; it is for
            all layers of the checkpoint, so not behind `prune_layers`.
        layer: in front of which language layer, counted in the model as it runs; or a share of its depth.
    """

    layer: Any = 2

    def __post_init__(self) -> None:
        budget_of(self.method, self.budget)
        check_amount(self.method, "layer", self.layer, least=1)

    @property
    def dynamic(self) -> bool:
        return isinstance(budget_of(self.method, self.budget), Mass)

    @property
    def learns(self) -> bool:
        return isinstance(budget_of(self.method, self.budget), Measured)

    def calibrated(self, model: ActionModel, calibration: Any) -> "Ranking":
        budget = budget_of(self.method, self.budget)
        if not isinstance(budget, Measured):
            return self
        if calibration is None or not calibration.tokens:
            there = "there is none" if calibration is None else "the one there says nothing about tokens"
            raise InputError(
                f"tokens={self.method}: budget.measured needs a calibration of this checkpoint, {there} ({COMMAND})"
            )
        return replace(self, budget={"table": falling_table(calibration.tokens, budget.keep)})

    def scores(self, seen: Seen) -> Tensor:
        """(rows, n), higher for what shall stay, not negative."""
        raise NotImplementedError

    def choose(self, seen: Seen, count: int) -> Tensor:
        return top(self.scores(seen), count)

    def place(self, layout: Layout) -> int:
        return layer_number(self.method, self.layer, layout.depth)

    def calls(self, layout: Layout) -> list[Call]:
        budget = budget_of(self.method, self.budget)
        if not isinstance(budget, Table):
            return super().calls(layout)
        steps = budget.steps(layout.same(self.method), layout.depth)
        return [Call(Point.SEQUENCE, layer, partial(self._leave, count)) for layer, count in steps]

    def _leave(self, count: int, layout: Layout) -> Bound:
        return bound(self.method, self.choose, Fixed((count,)).counts(layout.counts), layout)

    def _bind(self, layout: Layout) -> Bound:
        budget = budget_of(self.method, self.budget)
        if not isinstance(budget, Mass):
            return super()._bind(layout)
        if layout.read_on:
            raise InputError(
                "a budget by mass keeps other numbers for other sessions, and the keys and values of this model are "
                "read again afterwards; give a number or a share"
            )
        return Bound(layout, partial(self._carrying, budget))

    def _carrying(self, budget: Mass, sequence: Tokens) -> Tokens:
        """What carries the attention; rows that need fewer tokens than the longest have padding instead."""
        assert sequence.sight is not None
        now = sequence.sight.layout.counts
        parts, valid, counts = [], [], []
        for first, cameras, tokens, _ in alike(now, now):
            scores = self.scores(Seen(sequence, first, cameras, tokens))
            count, kept = budget.pick(scores)
            order = scores.argsort(dim=-1, descending=True, stable=True)[:, :count]
            index, rank = order.sort(dim=-1)
            starts = first + tokens * torch.arange(cameras, device=index.device)[:, None]
            parts.append((index.unflatten(0, (-1, cameras)) + starts).flatten(1))
            valid.append((rank < kept[:, None]).unflatten(0, (-1, cameras)).flatten(1))
            counts += [count] * cameras
        left = taken(self.method, sequence, torch.cat(parts, dim=1), sequence.sight.layout.left(tuple(counts)))
        return _hiding(left, torch.cat(valid, dim=1))


def bound(name: str, choose: Any, counts: tuple[int, ...], layout: Layout) -> Bound:
    """A choice at one point; nothing runs if everything stays."""
    if counts == layout.counts:
        return Bound(layout, None)
    return Bound(layout.left(counts), partial(keep, name, choose, counts))


def _hiding(sequence: Tokens, valid: Tensor) -> Tokens:
    """The sequence with visual tokens that are not (batch, visual tokens) valid as padding."""
    sight = sequence.sight
    assert sight is not None
    attended = sequence.attended.clone()
    attended[:, sight.start : sight.end] &= valid
    uneven = len(valid) > 1 or len(sight.layout.counts) > 1  # rows or cameras may need different numbers
    return replace(sequence, attended=attended, padded=sequence.padded or uneven)
