"""Greedy autoregressive decoding: one word after the other, each the likeliest (OpenVLA's `predict_action`)."""

import torch
from torch import Tensor

from vla.models.openvla import OpenVla, Prefilled


def decode(model: OpenVla, prefilled: Prefilled) -> Tensor:
    """The words of one action.

    Args:
        model: writes the words.
        prefilled: of `model.prefill`; its cache is used up.

    Returns:
        (batch, action_dim) int64.
    """
    words = [_likeliest(model, prefilled)]
    while len(words) < model.config.action_dim:
        prefilled = model.extend(prefilled, words[-1])
        words.append(_likeliest(model, prefilled))
    return torch.cat(words, dim=1)


def _likeliest(model: OpenVla, prefilled: Prefilled) -> Tensor:
    """(batch, 1) int64."""
    return model.logits(prefilled.hidden[:, -1:]).argmax(dim=-1)
