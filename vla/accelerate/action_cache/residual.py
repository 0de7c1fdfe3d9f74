"""What all blocks of a denoising network together added to their input, kept from earlier steps.

With every block's attention and MLP on one schedule, a reused step is `output = input + R`, where R is the sum of what
all blocks added in the last full step: one tensor instead of two for each block (EfficientVLA, eq. 6-11, collapsed).
"""

import torch
from torch import Tensor

from vla.api import InputError


class Residual:
    """The residuals of the last full steps, for every row its own.

    Args:
        order: 0: the last is used as it is; 1: it goes on as it changed between the last two (TaylorSeer, order 1).
    """

    def __init__(self, order: int) -> None:
        self._order = order
        self._kept: list[tuple[Tensor, Tensor]] = []  # newest first: step (rows, 1, 1) and residual

    def keep(self, index: int, before: Tensor, after: Tensor, rows: Tensor | None = None) -> None:
        """Remember a full step.

        Args:
            index: of the step.
            before, after: (rows, tokens, width) around the blocks.
            rows: (rows,) bool: whose step it was; None: everybody's.
        """
        step = torch.full((len(before), 1, 1), float(index), dtype=torch.float32, device=before.device)
        made = after - before
        if rows is None or not self._kept:
            self._kept = [(step, made), *self._kept[:1]]
            return
        chosen, (last_step, last) = rows[:, None, None], self._kept[0]
        older_step, older = self._kept[-1]
        newest = (torch.where(chosen, step, last_step), torch.where(chosen, made, last))
        second = (torch.where(chosen, last_step, older_step), torch.where(chosen, last, older))
        self._kept = [newest, second]

    def at(self, index: int) -> Tensor:
        """The residual that a step is taken to have, (rows, tokens, width)."""
        step, last = self._kept[0]
        if self._order == 0 or len(self._kept) == 1:
            return last
        earlier_step, earlier = self._kept[1]
        apart = (step - earlier_step).clamp(min=1)
        return last + (last - earlier) * ((index - step) / apart).to(last.dtype)

    def change(self) -> Tensor:
        """(rows, tokens, width) from the last but one full step to the last."""
        return self._kept[0][1] - self._kept[1][1]

    @property
    def newest(self) -> Tensor:
        """Of the last full step."""
        return self._kept[0][1]


def check_order(method: str, order: object) -> None:
    """Refuse what is no order of extrapolation."""
    if isinstance(order, bool) or order not in (0, 1):
        raise InputError(f"action_cache={method}: order must be 0 (as it was) or 1 (extrapolated), got {order!r}")


def check_interval(method: str, interval: object) -> None:
    """Refuse what is no number of steps."""
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise InputError(f"action_cache={method}: interval must be a whole number of at least 1, got {interval!r}")
