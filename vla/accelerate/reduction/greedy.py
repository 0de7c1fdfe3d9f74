"""Greedy choices among tokens: all similarities are one product beforehand, a step updates what changed.

A step costs the same few operations whatever the batch; nothing waits for the device.
"""

import torch
from torch import Tensor


def greedy_cover(coverage: Tensor, count: int, bonus: Tensor | None = None) -> Tensor:
    """Columns that greedily maximise the sum over rows of the best value, plus bonuses; within 1 - 1/e of the best.

    Args:
        coverage: (batch, columns, rows) not negative: how well a column covers a row.
        count: columns to choose.
        bonus: (batch, columns) that each chosen column adds.

    Returns:
        (batch, count) int64 ascending.
    """
    batch, columns, _ = coverage.shape
    each = torch.arange(batch, device=coverage.device)
    open_to = coverage.new_zeros(batch, columns) if bonus is None else bonus.clone()
    covered = torch.zeros_like(coverage[:, :1])
    chosen = []
    for _ in range(count):
        best = (torch.maximum(coverage, covered).sum(dim=-1) + open_to).argmax(dim=-1)  # (batch,)
        covered = torch.maximum(covered, coverage[each, best][:, None])
        open_to.scatter_(1, best[:, None], float("-inf"))
        chosen.append(best)
    return torch.stack(chosen, dim=1).sort(dim=-1).values


def farthest(distance: Tensor, count: int) -> Tensor:
    """Tokens far from each other: first the one whose nearest is farthest, then always the farthest from those chosen.

    Args:
        distance: (batch, tokens, tokens).
        count: tokens to choose.

    Returns:
        (batch, count) int64 ascending.
    """
    batch, tokens, _ = distance.shape
    each = torch.arange(batch, device=distance.device)
    itself = torch.eye(tokens, dtype=torch.bool, device=distance.device)
    others = distance.masked_fill(itself, float("inf"))
    best = others.min(dim=-1).values.argmax(dim=-1)
    chosen, nearest = [best], distance[each, best]
    for _ in range(count - 1):
        nearest.scatter_(1, best[:, None], float("-inf"))
        best = nearest.argmax(dim=-1)
        nearest = torch.minimum(nearest, distance[each, best])
        chosen.append(best)
    return torch.stack(chosen, dim=1).sort(dim=-1).values
