"""Makes camera images square exactly as the policy would, on a robot that has no PyTorch (numpy only).

The same antialiased bicubic interpolation of bytes as `torch.nn.functional.interpolate`, which `vla.images.Resize`
uses, bit for bit: Catmull-Rom weights stretched by the scale, as 16-bit integers, along the width and then the height.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError

NAIVE, CROP = "resize-naive", "resize-crop"
STRATEGIES = (NAIVE, CROP)
_RADIUS = 2.0  # [px] of the bicubic kernel at scale 1
_A = -0.5  # Catmull-Rom, as Pillow and torch use when they antialias


def square(image: NDArray[np.uint8], strategy: str, side: int) -> NDArray[np.uint8]:
    """What the policy would make of an image.

    Args:
        image: (height, width, channels).
        strategy: "resize-naive" squeezes, "resize-crop" cuts off what sticks out.
        side: [px] of the square.

    Returns:
        (side, side, channels).

    Raises:
        InputError: on another strategy.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy must be one of {list(STRATEGIES)}, got {strategy!r}")
    height, width = image.shape[:2]
    if strategy == NAIVE:
        return resized(image, side, side)
    short = min(height, width)
    image = resized(image, side * height // short, side * width // short)
    top, left = (round((length - side) / 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, channels) -> (height, width, channels)."""
    if image.shape[1] != width:
        image = _along_rows(image.swapaxes(0, 1), width).swapaxes(0, 1)
    return image if image.shape[0] == height else _along_rows(image, height)


def _along_rows(image: NDArray[np.uint8], length: int) -> NDArray[np.uint8]:
    """(rows, others, channels) -> (length, others, channels)."""
    first, weights, precision = _weights(image.shape[0], length)
    flat = np.ascontiguousarray(image).reshape(image.shape[0], -1)  # (rows, others * channels)
    total = np.full((length, flat.shape[1]), 1 << (precision - 1), np.int32)  # rounds the shift below
    for tap in range(weights.shape[1]):
        rows = np.minimum(first + tap, len(flat) - 1)  # the weight of what lies beyond is 0
        total += np.multiply(flat[rows], weights[:, tap, None], dtype=np.int32)
    return np.clip(total >> precision, 0, 255).astype(np.uint8).reshape(length, *image.shape[1:])


@lru_cache(maxsize=32)
def _weights(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.int32], int]:
    """First pixel of each output, (target,), its weights (target, taps) as integers, and their binary places."""
    scale = source / target
    stretch = max(scale, 1.0)
    centre = scale * (np.arange(target) + 0.5)  # [px]
    first = np.maximum((centre - _RADIUS * stretch + 0.5).astype(int), 0)
    last = np.minimum((centre + _RADIUS * stretch + 0.5).astype(int), source)
    taps = np.arange((last - first).max())
    distance = (first[:, None] + taps - centre[:, None] + 0.5) / stretch
    weights = np.where(first[:, None] + taps < last[:, None], _cubic(np.abs(distance)), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    precision = next(
        bits for bits in range(23) if bits == 22 or int(0.5 + weights.max() * (1 << (bits + 1))) >= 1 << 15
    )
    scaled = weights * (1 << precision)
    return first, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32), precision


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
