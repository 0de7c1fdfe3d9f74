"""Greedy autoregressive decoding: one word after the other, each the likeliest (OpenVLA's `predict_action`)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vla.accelerate.stages import Decoding
from vla.decoding.decoder import Decoder, Pen


@dataclass(frozen=True)
class Autoregressive(Decoding):
    """Greedy, word by word, among the action words."""

    @property
    def dynamic(self) -> bool:
        return False

    def decoder(self) -> Decoder:
        return Decoder(write, self.cache)


def write(pen: Pen, count: int) -> Tensor:
    """(batch, count) int64."""
    words = [pen.following()]
    while len(words) < count:
        words.append(pen.likeliest(pen.read(words[-1])))
        pen.accepted.append(1)
    return torch.cat(words, dim=1)


TECHNIQUE = Autoregressive
