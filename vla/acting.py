"""How normalised actions come out of what `prefill` gave: one entry for each kind of head."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vla.decoding import autoregressive
from vla.models.family import ActionModel
from vla.models.heads.diffusion import timesteps_for
from vla.recipe import Recipe

Act = Callable[[Any, Tensor], Tensor]


def head_of(model: ActionModel, recipe: Recipe) -> Act:
    """The stage `head`: (what `model.prefill` gave, noise (batch, *noise_shape)) -> (batch, horizon, A) normalised.

    Raises:
        InputError: if the recipe does not fit the model.
    """
    return _HEADS[model.HEAD](model, recipe)


def _denoising(model: Any, recipe: Recipe) -> Act:
    steps, guidance = recipe.denoising_steps, recipe.guidance_scale
    timesteps_for(steps, model.config.train_steps)  # refuses steps that do not divide
    return lambda cognition, noise: model.head.sample(cognition, noise, steps, guidance)


def _flowing(model: Any, recipe: Recipe) -> Act:
    return lambda prefilled, noise: model.sample(prefilled, noise, recipe.denoising_steps)


def _decoding(model: Any, recipe: Recipe) -> Act:
    return lambda prefilled, noise: model.actions(autoregressive.decode(model, prefilled))


_HEADS: dict[str, Callable[[Any, Recipe], Act]] = {
    "diffusion": _denoising,
    "flow": _flowing,
    "tokens": _decoding,
}
