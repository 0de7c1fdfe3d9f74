"""How normalised actions come out of what `prefill` gave, for heads that denoise; words are a decoder's."""

from collections.abc import Callable
from typing import Any

from vla.accelerate.stages import Act
from vla.models.family import ActionModel
from vla.models.heads.diffusion import timesteps_for
from vla.recipe import Recipe


def head_of(model: ActionModel, recipe: Recipe) -> Act:
    """The stage `head`: (what `model.prefill` gave, noise (batch, *noise_shape)) -> (batch, horizon, A) normalised.

    Raises:
        InputError: if the recipe does not fit the model.
    """
    return _HEADS[model.HEAD](model, recipe)


def check_steps(model: ActionModel, recipe: Recipe) -> None:
    """Refuse denoising steps that do not divide a diffusion head's schedule.

    Raises:
        InputError: listing those that do.
    """
    if model.HEAD == "diffusion":
        timesteps_for(recipe.denoising_steps, model.config.train_steps)


def _denoising(model: Any, recipe: Recipe) -> Act:
    steps, guidance = recipe.denoising_steps, recipe.guidance_scale
    return lambda cognition, noise: model.head.sample(cognition, noise, steps, guidance)


def _flowing(model: Any, recipe: Recipe) -> Act:
    return lambda prefilled, noise: model.sample(prefilled, noise, recipe.denoising_steps)


_HEADS: dict[str, Callable[[Any, Recipe], Act]] = {
    "diffusion": _denoising,
    "flow": _flowing,
}
