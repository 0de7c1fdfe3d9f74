"""Greedy autoregressive decoding: one word after the other, each the likeliest (OpenVLA's `predict_action`)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vla.accelerate.stages import Decoding


@dataclass(frozen=True)
class Autoregressive(Decoding):
    """Greedy, word by word."""

    def decode(self, model: Any, prefilled: Any) -> Tensor:
        return decode(model, prefilled)


def decode(model: Any, prefilled: Any) -> Tensor:
    """The words of one action.

    Args:
        model: writes the words: `vla.models.openvla.OpenVla`, or what has its `config`, `logits` and `extend`.
        prefilled: of `model.prefill`; its cache is used up.

    Returns:
        (batch, action_dim) int64.
    """
    words = [_likeliest(model, prefilled)]
    while len(words) < model.config.action_dim:
        prefilled = model.extend(prefilled, words[-1])
        words.append(_likeliest(model, prefilled))
    return torch.cat(words, dim=1)


def _likeliest(model: Any, prefilled: Any) -> Tensor:
    """(batch, 1) int64."""
    return model.logits(prefilled.hidden[:, -1:]).argmax(dim=-1)


TECHNIQUE = Autoregressive
