"""Camera images to the square that a vision tower reads: as Prismatic VLMs do it, and as pi0's two codes do."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vla.api import InputError

NAIVE, CROP, LETTERBOX = "resize-naive", "resize-crop", "letterbox"
STRATEGIES = (NAIVE, CROP, LETTERBOX)  # of Prismatic's `image_resize_strategy`
BORDER_AROUND, BORDER_AFTER = "border-around", "border-after"  # of openpi and LeRobot; of transformers' PI0
_ALL = (*STRATEGIES, BORDER_AROUND, BORDER_AFTER)
_GREY = 127.5  # is 0 once pixels are normalised to [-1, 1]


@dataclass(frozen=True)
class Resize:
    """How images become square.

    Attributes:
        size: [px] side of the square.
        strategy: "resize-naive" squeezes, "resize-crop" cuts off what sticks out, "letterbox" adds a border first.
            "border-around" and "border-after" keep the proportions and add a border last: black on both sides, or
            grey at the right and the bottom.

    Raises:
        InputError: on a size below 1 or an unknown strategy.
    """

    size: int
    strategy: str = NAIVE

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise InputError(f"resize: size must be a whole number of at least 1, got {self.size!r}")
        if self.strategy not in _ALL:
            raise InputError(f"resize: strategy must be one of {list(_ALL)}, got {self.strategy!r}")

    def __call__(self, image: Tensor, fill: tuple[int, ...]) -> Tensor:
        """Resize with antialiased bicubic interpolation, as Pillow does; for "border-around" plainly bilinear.

        Args:
            image: (channels, height, width) uint8.
            fill: colour of a letterbox's border, one number in [0, 255] for each channel.

        Returns:
            (channels, size, size) uint8; float32 in [0, 255] with a border that was added last.
        """
        if self.strategy in (BORDER_AROUND, BORDER_AFTER):
            return _bordered(image, self.size, self.strategy == BORDER_AROUND)
        if self.strategy == LETTERBOX:
            image = _with_border(image, fill)
        height, width = image.shape[1:]
        if self.strategy == NAIVE:
            return _interpolated(image, self.size, self.size)
        short = min(height, width)
        image = _interpolated(image, self.size * height // short, self.size * width // short)
        top, left = (round((side - self.size) / 2) for side in image.shape[1:])
        return image[:, top : top + self.size, left : left + self.size]


def _with_border(image: Tensor, fill: tuple[int, ...]) -> Tensor:
    """Square but for one pixel: the same border on both sides."""
    _, height, width = image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    colours = torch.tensor(fill, dtype=image.dtype)[:, None, None]  # (channels, 1, 1)
    square = colours.repeat(1, height + 2 * top, width + 2 * left)
    square[:, top : top + height, left : left + width] = image
    return square


def _interpolated(image: Tensor, height: int, width: int) -> Tensor:
    if tuple(image.shape[1:]) == (height, width):
        return image
    return functional.interpolate(image[None], (height, width), mode="bicubic", antialias=True)[0]


def _bordered(image: Tensor, size: int, around: bool) -> Tensor:
    """The whole image as large as it fits, (channels, size, size) float32.

    Sources: openpi `resize_with_pad_torch`, of which LeRobot has a copy; transformers `PI0ImageProcessor`.
    """
    longest = max(image.shape[1:])
    if around:
        height, width = (int(side / (longest / size)) for side in image.shape[1:])
        resized = functional.interpolate(image[None].float(), (height, width), mode="bilinear")[0]
        top, left = (size - height) // 2, (size - width) // 2
        return functional.pad(resized, (left, size - width - left, top, size - height - top), value=0.0)
    height, width = (int(side * (size / longest)) for side in image.shape[1:])
    resized = _interpolated(image, height, width).float()
    return functional.pad(resized, (0, size - width, 0, size - height), value=_GREY)
