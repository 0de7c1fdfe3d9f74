"""Letting a chunk continue actions that are already committed: real-time chunking on the policy's side.

The rows that will have been executed before the answer comes are repeated exactly; those after pull at the new chunk
with decaying weights (arXiv 2506.07339, eq. 5). The pull replaces the clean estimate in every denoising step
(RePaint, arXiv 2201.09865) instead of guiding it by a gradient, so it costs no backward pass.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vla.api import Observation
from vla.chunking import prefix_weights
from vla.models.family import ActionModel
from vla.processing import Processing
from vla.recipe import Recipe

Inpaint = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def inpainting_of(model: ActionModel, recipe: Recipe) -> Inpaint | None:
    """The stage `head` that continues: (prefilled, noise, known, weights) -> (batch, horizon, A) normalised.

    Returns:
        None for a head that cannot: one that says words.
    """
    made = _INPAINTING.get(model.HEAD)
    return None if made is None else made(model, recipe)


def _denoising(model: Any, recipe: Recipe) -> Inpaint:
    head, steps, guidance = model.head, recipe.denoising_steps, recipe.guidance_scale
    return lambda cognition, noise, known, weights: head.inpaint(cognition, noise, steps, guidance, known, weights)


def _flowing(model: Any, recipe: Recipe) -> Inpaint:
    steps = recipe.denoising_steps
    return lambda prefilled, noise, known, weights: model.inpaint(prefilled, noise, steps, known, weights)


_INPAINTING: dict[str, Callable[[Any, Recipe], Inpaint]] = {"diffusion": _denoising, "flow": _flowing}


def known_rows(observations: Sequence[Observation], processing: Processing, like: Tensor) -> tuple[Tensor, Tensor]:
    """The committed actions as the head needs them.

    Args:
        observations: some with committed actions.
        processing: of the model.
        like: (batch, horizon, A or more), the noise.

    Returns:
        (batch, horizon, A) normalised, zeros where nothing is committed, and the weights (batch, horizon, 1) in [0, 1].
    """
    known, weights = torch.zeros_like(like[:, :, : len(processing.actions)]), torch.zeros_like(like[:, :, :1])
    for row, seen in enumerate(observations):
        if seen.committed is not None:
            rows = len(seen.committed)
            known[row, :rows] = torch.from_numpy(processing.normalised_actions(seen.committed)).to(like)
            weights[row, :, 0] = torch.from_numpy(prefix_weights(seen.frozen, rows, like.shape[1])).to(like)
    return known, weights


def repeat_frozen(actions: NDArray[np.float32], observation: Observation) -> NDArray[np.float32]:
    """The chunk with the frozen rows exactly as they were sent, (horizon, A): normalising them rounds."""
    if observation.committed is None:
        return actions
    return np.concatenate([observation.committed[: observation.frozen], actions[observation.frozen :]])
