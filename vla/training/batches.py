"""Batches of demonstrations; batch k depends on the seed and k alone, so a resumed run sees the same ones."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla.processing import Processing
from vla.training.dataset import Demonstrations

_BRIGHTNESS = 0.15  # of the pixel values
_COLOUR = 12.0  # offset per channel, of 255


@dataclass(frozen=True)
class Batch:
    """Tensors of B frames.

    Attributes:
        images: (B, cameras, 3, size, size) float32, normalised.
        prompts: (B, words) int64, padded.
        states: (B, S) float32, normalised, or None.
        actions: (B, horizon, A) float32, normalised.
        keypoints: (B, K) float32 labels.
    """

    images: Tensor
    prompts: Tensor
    states: Tensor | None
    actions: Tensor
    keypoints: Tensor


class Batches:
    """Draws frames epoch by epoch and turns them into tensors.

    Args:
        demonstrations: all frames.
        frames: indices of those to draw from.
        processing: normalisation.
        prompts: (instructions, words) int64, padded.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        demonstrations: Demonstrations,
        frames: NDArray[np.int64],
        processing: Processing,
        prompts: Tensor,
        seed: int,
    ) -> None:
        self._data = demonstrations
        self._frames = frames
        self._processing = processing
        self._prompts = prompts
        self._seed = seed

    def training(self, start: int, size: int, image_size: int) -> Batch:
        """The batch that begins at sample number `start` of the run, augmented."""
        positions = np.arange(start, start + size)
        order = {epoch: self._epoch(int(epoch)) for epoch in set(positions // len(self._frames))}
        chosen = np.array([order[p // len(self._frames)][p % len(self._frames)] for p in positions])
        return self.of(chosen, image_size, np.random.default_rng((self._seed, 1, start)))

    def of(self, frames: NDArray[np.int64], image_size: int, rng: np.random.Generator | None = None) -> Batch:
        """Chosen frames; with a generator, brightness and colours vary."""
        views = [_shrink(view[frames], image_size) for view in self._data.views.values()]
        images = torch.from_numpy(np.stack(views, axis=1)).float()  # (B, cameras, H, W, 3)
        if rng is not None:
            images = _recoloured(images, rng)
        states = self._processing.state_range.normalise(self._data.states[frames])
        actions = self._processing.action_range.normalise(self._data.chunk(frames)).clip(-1, 1)
        return Batch(
            images=self._processing.normalise_images(images).contiguous(),
            prompts=self._prompts[torch.from_numpy(self._data.task_index[frames])],
            states=torch.from_numpy(states) if self._processing.state else None,
            actions=torch.from_numpy(actions),
            keypoints=torch.from_numpy(self._data.keypoints[frames]),
        )

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self._seed, 0, epoch)).permutation(self._frames)


def _shrink(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Average over squares of pixels, (B, height, width, 3) -> (B, size, size, 3), rounded down."""
    side = images.shape[1] // size
    if side == 1:
        return images
    total = sum(images[:, i::side, j::side].astype(np.uint16) for i in range(side) for j in range(side))
    return (total // side**2).astype(np.uint8)


def _recoloured(images: Tensor, rng: np.random.Generator) -> Tensor:
    gain = torch.from_numpy(rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS, (len(images), 1, 1, 1, 1))).float()
    offset = torch.from_numpy(rng.uniform(-_COLOUR, _COLOUR, (len(images), 1, 1, 1, 3))).float()
    return (images * gain + offset).clamp(0, 255)
