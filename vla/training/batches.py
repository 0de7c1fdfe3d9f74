"""Batches of demonstrations; batch k depends on the seed and k alone, so a resumed run sees the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vla.models.trunk import TrunkConfig
from vla.processing import Processing
from vla.tokenizer import prompt_ids
from vla.training.dataset import Demonstrations
from vla.training.keypoints import is_place
from vla.training.mixture import Mixture, statistics
from vla.training.video_cache import open_shrunken

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
        keypoints: (B, K) float32 labels, relative to their means over the robot's frames but for places in the image.
    """

    images: Tensor
    prompts: Tensor
    states: Tensor | None
    actions: Tensor
    keypoints: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)


class Prompts:
    """Every instruction in several wordings, the first as it was demonstrated.

    Args:
        wordings: instruction -> word ids of each of its wordings, (words,) int64.
        pad_id: of the padding that makes all equally long.
    """

    def __init__(self, wordings: Mapping[str, Sequence[Tensor]], pad_id: int) -> None:
        flat = [ids for each in wordings.values() for ids in each]
        self._table = pad_sequence(flat, batch_first=True, padding_value=pad_id)  # (all wordings, words)
        counts = [len(each) for each in wordings.values()]
        self._first = dict(zip(wordings, np.cumsum([0, *counts[:-1]]).tolist(), strict=True))
        self._count = dict(zip(wordings, counts, strict=True))

    def of(self, instructions: Sequence[str], rng: np.random.Generator | None) -> Tensor:
        """(B, words) int64; with a generator, half are reworded."""
        chosen = np.zeros(len(instructions), int)
        if rng is not None:
            counts = np.array([self._count[text] for text in instructions])
            chosen = rng.integers(counts) * rng.integers(2, size=len(counts))
        return self._table[[self._first[text] + int(which) for text, which in zip(instructions, chosen, strict=True)]]


def prompts_of(
    wordings: Mapping[str, Sequence[str]],
    processing: Mapping[str, Processing],
    tokenizer: tokenizers.Tokenizer,
    config: TrunkConfig,
) -> Prompts:
    """The words of texts.

    Args:
        wordings: instruction -> its wordings, the first as it was demonstrated.
        processing: of each robot.
        tokenizer, config: of the model that is spoken to.
    """
    said = next(iter(processing.values())).text  # all robots of a model are spoken to alike
    ids = {
        instruction: [prompt_ids(tokenizer, said(text), config.max_prompt)[0] for text in texts]
        for instruction, texts in wordings.items()
    }
    return Prompts(ids, config.pad_id)


class Batches:
    """Draws frames epoch by epoch and turns them into tensors.

    Args:
        mixture: all frames.
        frames: indices of those to draw from.
        processing: normalisation of each robot.
        prompts: words of each instruction.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        mixture: Mixture,
        frames: NDArray[np.int64],
        processing: Mapping[str, Processing],
        prompts: Prompts,
        seed: int,
    ) -> None:
        self._mixture = mixture
        self._frames = frames
        self._processing = processing
        self._prompts = prompts
        self._seed = seed
        self._shrunken: dict[tuple[int, int], list[NDArray[np.uint8]]] = {}  # (a dataset, image size) -> its views
        self._centres = {robot: _centre(parts) for robot, parts in mixture.by_robot().items()}

    def training(self, start: int, size: int, image_size: int) -> Batch:
        """The batch that begins at sample number `start` of the run, augmented."""
        positions = np.arange(start, start + size)
        order = {epoch: self._epoch(int(epoch)) for epoch in set(positions // len(self._frames))}
        chosen = np.array([order[p // len(self._frames)][p % len(self._frames)] for p in positions])
        return self.of(chosen, image_size, np.random.default_rng((self._seed, 1, start)))

    def of(self, frames: NDArray[np.int64], image_size: int, rng: np.random.Generator | None = None) -> Batch:
        """Chosen frames; with a generator, brightness, colours and wording vary."""
        groups = [
            (self._of_one(part, rows, image_size), places) for part, rows, places in self._mixture.located(frames)
        ]
        back = np.argsort(np.concatenate([places for _, places in groups]))
        columns = [np.concatenate(column)[back] for column in zip(*(group for group, _ in groups), strict=True)]
        texts, images, states, actions, keypoints = columns
        pixels = torch.from_numpy(images).movedim(-1, -3).contiguous().float()  # (B, cameras, 3, H, W)
        if rng is not None:
            _recolour(pixels, rng)
        any_processing = next(iter(self._processing.values()))  # all robots' images are scaled alike
        return Batch(
            images=any_processing.normalise_colours(pixels),
            prompts=self._prompts.of(texts.tolist(), rng),
            states=torch.from_numpy(states) if states.shape[1] else None,
            actions=torch.from_numpy(actions),
            keypoints=torch.from_numpy(keypoints),
        )

    def _of_one(self, part: Demonstrations, rows: NDArray[np.int64], image_size: int) -> tuple[NDArray, ...]:
        """Instructions, (n, cameras, H, W, 3) images, normalised states and actions, key points of one dataset."""
        processing = self._processing[part.robot]
        views = [view[rows] for view in self._views(part, image_size)]
        return (
            np.array([part.instructions[index] for index in part.task_index[rows]], dtype=object),
            np.stack(views, axis=1),
            processing.state_range.normalise(part.states[rows]),
            processing.action_range.normalise(part.chunk(rows)).clip(-1, 1),
            (part.keypoints[rows] - self._centres[part.robot]).astype(np.float32),
        )

    def _views(self, part: Demonstrations, image_size: int) -> list[NDArray[np.uint8]]:
        key = (id(part), image_size)
        if key not in self._shrunken:
            self._shrunken[key] = [open_shrunken(view, image_size) for view in part.views.values()]
        return self._shrunken[key]

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self._seed, 0, epoch)).permutation(self._frames)


def _centre(parts: Sequence[Demonstrations]) -> NDArray[np.float64]:
    """(K,) what the key points of a robot are relative to."""
    places = [is_place(quantity.name) for quantity in parts[0].keypoint_quantities]
    return np.where(places, 0.0, statistics(parts, "keypoints").mean)


def _recolour(images: Tensor, rng: np.random.Generator) -> None:
    """Change brightness and colours of (B, cameras, 3, H, W) pixel values in place: this is most of a batch's work."""
    gain = torch.from_numpy(rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS, (len(images), 1, 1, 1, 1))).float()
    offset = torch.from_numpy(rng.uniform(-_COLOUR, _COLOUR, (len(images), 1, 3, 1, 1))).float()
    images.mul_(gain).add_(offset).clamp_(0, 255)
