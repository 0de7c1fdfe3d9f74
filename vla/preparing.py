"""Lengths of prompts that recorded or compiled stages are made ready for before anybody waits for an answer.

What is recorded or compiled serves inputs of the shapes it has seen. So prompts are padded to one of a few lengths,
and with the first batch of each size all of these lengths are run once: a server does that before it is ready.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.stages import Stages

_ALONE = (8, 16, 24, 32, 40, 48, 56, 64, 128, 256)  # [words] of one prompt
_TOGETHER = (32, 64, 128, 256)  # of a batch, whose prompts are as long as the longest of them


def lengths(batch: int, longest: int) -> Sequence[int]:
    """Lengths that prompts are padded to, ascending.

    Args:
        batch: prompts that are answered together.
        longest: words that the model reads at most.
    """
    usual = _ALONE if batch == 1 else _TOGETHER
    return [*(length for length in usual if length < longest), longest]


def padded(prompts: Tensor, longest: int, padding: int) -> Tensor:
    """(batch, words) int64 -> (batch, one of `lengths`)."""
    words = prompts.shape[1]
    length = next(each for each in lengths(len(prompts), longest) if each >= words)
    return functional.pad(prompts, (0, length - words), value=padding)


class Preparation:
    """Runs stages at all lengths of prompts, once for each size of batch.

    Args:
        longest: words that the model reads at most.
        padding: word that stands for no word.
    """

    def __init__(self, longest: int, padding: int) -> None:
        self._longest, self._padding = longest, padding
        self._ready: set[int] = set()

    def __call__(self, stages: Stages, visual: Any, prompts: Tensor, states: Tensor | None, noise: Tensor) -> None:
        """Make ready for this size of batch, unless that was done.

        Stages that remember sessions are left alone: they are not recorded, and would remember what nobody asked.

        Args:
            stages: recorded or compiled.
            visual: what `stages.encode` gave.
            prompts, states, noise: of the batch.
        """
        if len(prompts) in self._ready:
            return
        self._ready.add(len(prompts))
        if stages.memory is not None or (stages.decoder is not None and stages.decoder.remembers):
            return
        for length in lengths(len(prompts), self._longest):
            whole = prompts[:, :1].repeat(1, length).fill_(_other_than(self._padding))
            for missing in (0, 1):  # a prompt that fills its length takes no mask
                if missing < length:
                    words = torch.cat([whole[:, missing:], whole[:, :missing].fill_(self._padding)], dim=1)
                    stages.act(stages.prefill(visual, words, states), noise)


def _other_than(word: int) -> int:
    return 0 if word else 1
