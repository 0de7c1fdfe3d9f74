"""What the surfaces of the scenes look like, computed; brightness around 1 is to be multiplied by a colour."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.textures import Image, shaded, speckle

Brightness = NDArray[np.float64]


def wood(colour: ArrayLike = (184, 150, 112), size: int = 256, boards: int = 4) -> Image:
    """(size, size, 3) boards with grain."""
    rng = np.random.default_rng(0)
    x, y = _grid(size)
    board = np.floor(x * boards).astype(int)
    tone = rng.uniform(-0.05, 0.05, size=boards)[board]
    wave = sum(np.sin(2 * np.pi * (f * x + 0.4 * np.sin(2 * np.pi * y + f) + p)) / f for f, p in ((9, 0.1), (23, 0.6)))
    grain = 0.12 * wave + rng.normal(0, 0.012, size=x.shape)
    seam = -0.18 * (np.abs(x * boards - np.round(x * boards)) < 0.02)
    return shaded(colour, 1.0 + tone + grain + seam)


def fabric(colour: ArrayLike, size: int = 128, threads: int = 32) -> Image:
    """(size, size, 3) coarse cloth of office partitions."""
    x, y = _grid(size)
    weave = 0.06 * np.sin(2 * np.pi * threads * x) * np.sin(2 * np.pi * threads * y)
    return shaded(colour, 1.0 + weave + (speckle(size, size, 0.05) - 1.0))


def stone(colour: ArrayLike, size: int = 256, contrast: float = 0.06, grain: float = 0.03) -> Image:
    """(size, size, 3) polished stone, concrete or plaster: soft clouds and fine grain, each of this contrast."""
    return shaded(colour, 1.0 + contrast * _clouds(size) + (speckle(size, size, grain) - 1.0))


def tiles(colour: ArrayLike, grout: float = 0.75, size: int = 256, across: int = 4) -> Image:
    """(size, size, 3) square tiles, each of a slightly other tone, with darker grout between them."""
    x, y = _grid(size)
    tone = np.random.default_rng(1).uniform(0.94, 1.06, size=(across, across))
    tile = tone[np.floor(y * across).astype(int), np.floor(x * across).astype(int)]
    edge = np.minimum(x * across % 1, y * across % 1) < 0.05
    return shaded(colour, np.where(edge, grout, tile) * speckle(size, size, 0.01))


def _grid(size: int) -> tuple[Brightness, Brightness]:
    """x and y, (size, size) each in [0, 1)."""
    line = np.linspace(0, 1, size, endpoint=False)
    x, y = np.meshgrid(line, line)
    return x, y


def _clouds(size: int) -> Brightness:
    """(size, size) smooth random pattern in about [-1, 1] that repeats without a seam."""
    rng = np.random.default_rng(2)
    x, y = _grid(size)
    waves = [(i, j) for i in range(-5, 6) for j in range(6) if 0 < i * i + j * j <= 26]
    phases = rng.uniform(0, 2 * np.pi, size=len(waves))
    total = sum(
        np.sin(2 * np.pi * (i * x + j * y) + phase) / np.hypot(i, j)
        for (i, j), phase in zip(waves, phases, strict=True)
    )
    return np.asarray(total) / np.abs(total).max()
