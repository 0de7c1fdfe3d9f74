"""Grid resampling: a smaller grid of tokens, each a mean of its cell, or the image's low frequencies (Fourier-VLM).

Both are one constant matrix between vision tower and projector. An orthonormal cosine transform that is cut and
inverted at a smaller size makes everything larger by the root of the ratio of sizes, 2 for 24 x 24 to 12 x 12; models
that were not trained with it need that taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate.reduction.calls import Bound, Call, Features, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.options import amount, check_amount, check_choice, check_flag
from vla.accelerate.stages import TokenReduction
from vla.api import InputError


@dataclass(frozen=True)
class GridResample(TokenReduction):
    """Fewer rows and columns, the same for every camera.

    Args:
        grid: rows and columns: one amount for both, or two; a share is one of the patches along an axis.
        mode: "average" of each cell, or "dct": the cosine transform's low frequencies (Fourier-VLM, arXiv 2508.06038).
        gain: whether the cosine transform's gain is taken back.
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {"grid": 1.0}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"grid": 0.5}
    grid: Any = 0.5
    mode: str = "average"
    gain: bool = True

    def __post_init__(self) -> None:
        check_choice(self.method, "mode", self.mode, ("average", "dct"))
        check_flag(self.method, "gain", self.gain)
        if len(self._axes) != 2:
            raise InputError(f"tokens={self.method}: grid must be rows and columns, got {self.grid!r}")
        for axis in self._axes:
            check_amount(self.method, "grid", axis, least=1)

    @property
    def _axes(self) -> tuple[Any, ...]:
        return tuple(self.grid) if isinstance(self.grid, list | tuple) else (self.grid, self.grid)

    def calls(self, layout: Layout) -> list[Call]:
        return [Call(Point.FEATURES, 0, self._bind)]

    def _bind(self, layout: Layout) -> Bound:
        if not layout.whole:
            raise InputError(
                f"{self.method} needs a camera's whole grid of {layout.patches} patches, what acts before it leaves "
                f"{list(layout.counts)} tokens"
            )
        (first, second), (rows, columns) = self._axes, layout.grid
        small = amount(first, rows), amount(second, columns)
        if any(axis > side for axis, side in zip(small, layout.grid, strict=True)):
            raise InputError(f"grid {list(small)} is above the {list(layout.grid)} patches of a camera")
        if small == layout.grid:
            return Bound(layout, None)
        act = partial(resample, self.mode, self.gain, layout.grid, small)
        return Bound(layout.left((small[0] * small[1],) * len(layout.counts)), act)


def resample(mode: str, gain: bool, grid: tuple[int, int], small: tuple[int, int], found: Features) -> Features:
    """The features of a smaller grid, each token at the position of the patch in its cell's middle."""
    rows, device = len(found.tokens), found.tokens.device
    matrix = operator(mode, gain, grid, small, device)  # (fewer, tokens) float32
    tokens = (matrix @ found.tokens.float()).to(found.tokens.dtype)
    lines = [_cells(side, fewer, device) for side, fewer in zip(grid, small, strict=True)]
    middles = [(2 * torch.arange(n, device=device) + 1) * side // (2 * n) for side, n in zip(grid, small, strict=True)]
    patches = (middles[0][:, None] * grid[1] + middles[1]).flatten()
    owner = (lines[0][:, None] * small[1] + lines[1]).flatten()
    return Features(tokens, patches.expand(rows, -1), owner.expand(rows, -1), None, None)


@cache
def operator(mode: str, gain: bool, grid: tuple[int, int], small: tuple[int, int], device: torch.device) -> Tensor:
    """The method as a matrix, (fewer, patches) float32."""
    one_axis = _averaging if mode == "average" else _low_frequencies
    matrix = torch.kron(*(one_axis(side, fewer) for side, fewer in zip(grid, small, strict=True)))
    if mode == "dct" and gain:
        matrix = matrix * (small[0] * small[1] / (grid[0] * grid[1])) ** 0.5
    return matrix.float().to(device)


def _averaging(side: int, fewer: int) -> Tensor:
    """(fewer, side): means of the cells, which overlap where they cannot part the patches evenly."""
    cell, patch = torch.arange(fewer)[:, None], torch.arange(side)
    inside = (patch >= cell * side // fewer) & (patch < -(-(cell + 1) * side // fewer))
    return inside.double() / inside.sum(dim=1, keepdim=True)


def _low_frequencies(side: int, fewer: int) -> Tensor:
    """(fewer, side): the transform, its first frequencies, and the inverse at the smaller size."""
    return _cosines(fewer).T @ _cosines(side)[:fewer]


def _cosines(side: int) -> Tensor:
    """The orthonormal type-II cosine transform, (frequencies, side) float64."""
    frequency, place = torch.arange(side, dtype=torch.float64)[:, None], torch.arange(side, dtype=torch.float64)
    waves = (2 / side) ** 0.5 * torch.cos(torch.pi * (2 * place + 1) * frequency / (2 * side))
    waves[0] /= 2**0.5
    return waves


def _cells(side: int, fewer: int, device: torch.device) -> Tensor:
    """(side,) int64: which cell each patch along an axis is in."""
    return (2 * torch.arange(side, device=device) + 1) * fewer // (2 * side)


TECHNIQUE = GridResample
