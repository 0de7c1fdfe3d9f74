"""Uniform grid: keep patches spread evenly over the image, whatever is in it; the baseline that costs nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vla.accelerate.reduction.seen import Seen
from vla.accelerate.reduction.selecting import Anywhere


@dataclass(frozen=True)
class UniformGrid(Anywhere):
    """Rows of evenly spread patches, the rows evenly spread too; of tokens that are no full grid, every so many-th."""

    def choose(self, seen: Seen, count: int) -> Tensor:
        rows, tokens = seen.patches.shape
        height, width = seen.grid
        device = seen.patches.device
        index = _spread(height, width, count, device) if tokens == height * width else _every(tokens, count, device)
        return index.expand(rows, -1)


def _spread(height: int, width: int, count: int, device: torch.device) -> Tensor:
    """(count,) int64 ascending patches of a grid."""
    lines = min(height, count, max(round((count * height / width) ** 0.5), -(-count // width)))
    line = torch.arange(lines, device=device)
    ends = (line + 1) * count // lines  # how many patches are in this line and those above
    each = torch.arange(count, device=device)
    of = torch.searchsorted(ends, each, right=True)  # the line of each
    begins = (of * count).div(lines, rounding_mode="floor")
    in_line = ends[of] - begins
    column = ((2 * (each - begins) + 1) * width).div(2 * in_line, rounding_mode="floor")
    row = ((2 * of + 1) * height).div(2 * lines, rounding_mode="floor")
    return row * width + column


def _every(tokens: int, count: int, device: torch.device) -> Tensor:
    return ((2 * torch.arange(count, device=device) + 1) * tokens).div(2 * count, rounding_mode="floor")


TECHNIQUE = UniformGrid
