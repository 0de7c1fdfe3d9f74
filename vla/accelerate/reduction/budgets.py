"""How many visual tokens stay: a fixed number, as many as carry the attention (ZipVL), or a number for each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vla.accelerate.reduction.options import amount, check_amount, check_range
from vla.api import InputError

_KEYS = ("mass", "buckets")


@dataclass(frozen=True)
class Fixed:
    """The same number always.

    Args:
        values: one amount for all cameras, or one for each.
    """

    values: tuple[Any, ...]

    def counts(self, now: Sequence[int]) -> tuple[int, ...]:
        """Tokens that stay of each camera.

        Raises:
            InputError: if a camera has fewer, or the cameras are of another number.
        """
        values = self.values * len(now) if len(self.values) == 1 else self.values
        if len(values) != len(now):
            raise InputError(f"budget {list(self.values)} is for {len(values)} cameras, this model has {len(now)}")
        return tuple(_fitting(amount(value, count), count) for value, count in zip(values, now, strict=True))


@dataclass(frozen=True)
class Mass:
    """As many as carry a share of the attention, rounded up to a bucket so that few lengths occur.

    ZipVL (2024, arXiv 2410.08584): p = min{p : the p largest scores add up to at least the share}.

    Args:
        mass: the share.
        buckets: lengths that may occur; all tokens are always one of them.
    """

    mass: float
    buckets: tuple[int, ...]

    def counts(self, now: Sequence[int]) -> tuple[int, ...]:
        """At most all of them."""
        return tuple(now)

    def pick(self, scores: Tensor) -> tuple[int, Tensor]:
        """How many tokens stay.

        Args:
            scores: (rows, tokens), not negative.

        Returns:
            Tokens that the longest row keeps, and (rows,) how many each row keeps; both are buckets.
        """
        tokens = scores.shape[1]
        allowed = torch.tensor(sorted({*(b for b in self.buckets if b < tokens), tokens}), device=scores.device)
        needed = carrying(scores, self.mass)  # (rows,)
        kept = allowed[torch.searchsorted(allowed, needed)]
        return int(kept.max()), kept


@dataclass(frozen=True)
class Table:
    """A number for each language layer, as PrefixKV's search finds it (`vla.accelerate.reduction.tables`).

    A token that a later layer needs must be there in all layers before, so the numbers never rise from layer to layer.

    Args:
        values: an amount for each layer.
    """

    values: tuple[Any, ...]

    def steps(self, tokens: int, depth: int) -> list[tuple[int, int]]:
        """(layer, tokens left from there on) wherever tokens go, of a camera with so many.

        Raises:
            InputError: if the table is for another depth, or keeps more than there are.
        """
        if len(self.values) != depth:
            raise InputError(f"budget.table has {len(self.values)} layers, this model has {depth}")
        counts = [_fitting(amount(value, tokens), tokens) for value in self.values]
        needed = [max(counts[layer:]) for layer in range(depth)]  # at layer 0 there is no attention to choose by yet
        pairs = [(layer, needed[layer]) for layer in range(1, depth)]
        before = [tokens, *(count for _, count in pairs)]
        return [(layer, count) for (layer, count), last in zip(pairs, before, strict=False) if count < last]


@dataclass(frozen=True)
class Measured:
    """A number for each language layer, which the checkpoint's calibration decides (`falling`).

    Args:
        keep: share of all layers' tokens that stays.
    """

    keep: float


Budget = Fixed | Mass | Table | Measured


def budget_of(method: str, value: Any) -> Budget:
    """A budget from its value in a recipe: an amount, a list with one for each camera, or a mapping, see `Ranking`.

    Raises:
        InputError: if it is none of these.
    """
    if not isinstance(value, Mapping):
        return Fixed(_amounts(method, value))
    if set(value) == {"table"}:
        return Table(_amounts(method, value["table"]))
    if set(value) == {"measured"}:
        keep = value["measured"]
        if not isinstance(keep, float) or not 0 < keep <= 1:
            raise InputError(f"tokens={method}: budget.measured must be a share above 0.0 and up to 1.0, got {keep!r}")
        return Measured(keep)
    if set(value) != set(_KEYS):
        raise InputError(
            f"tokens={method}: budget as a mapping must have the keys {list(_KEYS)}, or the key table, or measured, "
            f"got {sorted(value)}"
        )
    check_range(method, "budget.mass", value["mass"], 0, 1)
    buckets = value["buckets"]
    if not isinstance(buckets, list | tuple) or not all(type(b) is int and b > 0 for b in buckets):
        raise InputError(f"tokens={method}: budget.buckets must be a list of whole numbers above 0, got {buckets!r}")
    return Mass(value["mass"], tuple(buckets))


def fixed(method: str, value: Any) -> Fixed:
    """As `budget_of`, of methods that have no attention to measure a budget by.

    Raises:
        InputError: also if it is a mapping.
    """
    budget = budget_of(method, value)
    if not isinstance(budget, Fixed):
        raise InputError(f"tokens={method}: budget must be an amount, or one for each camera, got {value!r}")
    return budget


def carrying(scores: Tensor, mass: float) -> Tensor:
    """(rows,) the least number of tokens whose (rows, tokens) scores add up to this share of each row's."""
    shares = scores.float().sort(dim=-1, descending=True).values.cumsum(dim=-1)
    shares = shares / shares[:, -1:]
    reached = torch.searchsorted(shares, torch.full_like(shares[:, :1], mass))[:, 0] + 1
    return reached.clamp(max=scores.shape[1])


def _amounts(method: str, value: Any) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise InputError(f"tokens={method}: budget must have at least one amount, got an empty list")
    for each in values:
        check_amount(method, "budget", each, least=1)
    return values


def _fitting(count: int, there: int) -> int:
    if count > there:
        raise InputError(f"budget {count} is above the {there} visual tokens that a camera has there; at most {there}")
    return count
