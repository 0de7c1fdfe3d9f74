"""Runs the blocks of the denoising network again once their residual may have changed too much since they last ran.

How far the residual has moved is not known without running the blocks, but how fast it moves with their input is: from
the last two full steps. That times the length of the input's way since the last full step estimates the accumulated
change, which is kept below a bound relative to the residual (the idea of TeaCache, arXiv 2411.19108, and of DBCache in
cache-dit; here nothing is fitted beforehand). Up to the bound the
residual is extrapolated along its last change, so what is left is of second order. The first two steps and the last
always run.

The decision is the host's, so on a GPU the head is not recorded as a graph: prefer `static` there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate.action_cache.residual import Residual, check_order
from vla.accelerate.stages import ActionCache, Blocks, Denoising
from vla.api import InputError


@dataclass(frozen=True)
class Adaptive(ActionCache):
    """Full steps as often as a bound on the residual's relative change asks for.

    In a batch, each chunk has its own schedule, as if it were alone.

    Args:
        bound: of the estimated relative change since the last full step; 0 runs the blocks in every step.
        order: 1 extrapolates from the last two full steps; 0 uses the last one.

    Raises:
        InputError: on a value outside its range.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"bound": 0.2}
    bound: float = 0.0
    order: int = 1

    def __post_init__(self) -> None:
        number = isinstance(self.bound, int | float) and not isinstance(self.bound, bool)
        if not number or not 0 <= self.bound < float("inf"):
            raise InputError(f"action_cache=adaptive: bound must be a number of at least 0, got {self.bound!r}")
        check_order("adaptive", self.order)

    @property
    def dynamic(self) -> bool:
        return True

    def wrap(self, blocks: Blocks, run: Denoising) -> Blocks:
        if self.bound == 0:
            return blocks
        return _Schedule(blocks, run, self.bound, Residual(self.order)).step


class _Schedule:
    """Of one batch of chunks."""

    def __init__(self, blocks: Blocks, run: Denoising, bound: float, residual: Residual) -> None:
        self._blocks, self._run, self._bound, self._residual = blocks, run, bound, residual
        self._of_chunk: Callable[[Tensor], Tensor] = lambda tensor: _chunk_norms(tensor, run.copies)

    def step(self, index: int, hidden: Tensor) -> Tensor:
        if index == 0:
            made = self._blocks(index, hidden)
            self._residual.keep(index, hidden, made)
            self._seen, self._anchor = hidden, hidden
            self._moved = torch.zeros(len(hidden) // self._run.copies, device=hidden.device)
            return made
        self._moved = self._moved + self._of_chunk(hidden - self._seen)
        self._seen = hidden
        if index in (1, self._run.steps - 1):
            stale = torch.ones_like(self._moved, dtype=torch.bool)
        else:
            stale = self._rate * self._moved > self._bound  # (batch,)
        guess = hidden + self._residual.at(index)
        if not stale.any():
            return guess
        made = self._blocks(index, hidden)
        rows = stale.repeat(self._run.copies)  # (copies * batch,)
        self._anchored(index, hidden, made, rows, stale)
        return torch.where(rows[:, None, None], made, guess)

    def _anchored(self, index: int, hidden: Tensor, made: Tensor, rows: Tensor, stale: Tensor) -> None:
        """Take note of a full step of some chunks, and of how fast the residual moved with its input."""
        travelled = self._of_chunk(hidden - self._anchor)
        self._residual.keep(index, hidden, made, rows)
        changed = self._of_chunk(self._residual.change()) / self._of_chunk(self._residual.newest)
        rate = changed / travelled  # relative change of the residual for each unit of the input's way
        self._rate = rate if index == 1 else torch.where(stale, rate, self._rate)
        self._anchor = torch.where(rows[:, None, None], hidden, self._anchor)
        self._moved = torch.where(stale, 0.0, self._moved)


def _chunk_norms(tensor: Tensor, copies: int) -> Tensor:
    """(batch,) Euclidean norm over all rows of each chunk of (copies * batch, tokens, width)."""
    by_copy = tensor.float().unflatten(0, (copies, -1))  # (copies, batch, tokens, width)
    return by_copy.square().sum(dim=(0, 2, 3)).sqrt().clamp(min=1e-9)


TECHNIQUE = Adaptive
