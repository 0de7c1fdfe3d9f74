"""Puts a model and the techniques of a recipe together, in the order of the slots."""

from pathlib import Path

import torch

from vla.accelerate import decoders
from vla.accelerate.stages import Execution, Stages, Weights
from vla.accelerate.techniques import check_fit
from vla.acting import check_steps
from vla.api import InputError
from vla.calibration.stored import RANDOM, Calibration, arbitrary, find
from vla.checkpoints.weights import dtype_of
from vla.models.family import ActionModel
from vla.recipe import Recipe


def fitted(recipe: Recipe, model: ActionModel, calibration: Calibration | None) -> Recipe:
    """The recipe with what its techniques learned about a model.

    Raises:
        InputError: if it does not fit the model, or needs a calibration and there is none.
    """
    check_steps(model, recipe)
    recipe = recipe.calibrated(model, calibration)
    check_fit(recipe.name, recipe.plugs, model)
    return recipe


def placed(model: ActionModel, device: torch.device, dtype: torch.dtype) -> ActionModel:
    """The model on its device, all but the head in `dtype`."""
    for name, part in model.named_children():
        part.to(device=device, dtype=dtype_of(f"{name}.", dtype))
    return model


@torch.no_grad()
def reweighted(model: ActionModel, recipe: Recipe) -> ActionModel:
    """The model after what changes its weights, in the recipe's order; what is left must suit the other techniques.

    Raises:
        InputError: if a technique does not apply to what those before it left.
    """
    for technique in recipe.plugs["weights"]:
        assert isinstance(technique, Weights)
        check_fit(recipe.name, {**recipe.plugs, "weights": (technique,)}, model)
        model = technique.apply(model)
    check_fit(recipe.name, {**recipe.plugs, "weights": ()}, model)
    return model


@torch.no_grad()
def built(model: ActionModel, recipe: Recipe) -> Stages:
    """The stages; what is computed from the weights alone is computed here."""
    (execution,) = recipe.plugs["execution"]
    assert isinstance(execution, Execution)
    return execution.stages(model, recipe)


def calibration_of(recipe: Recipe, directory: Path | None, weights_hash: str) -> Calibration | None:
    """What a recipe's techniques learn from; None if there is nothing, or the weights are random: `of_random` does.

    Args:
        recipe: may name a file.
        directory: of the checkpoint; None: it has none.
        weights_hash: of the checkpoint.

    Raises:
        InputError: if the file that it names is not there or cannot be used, or one beside the weights is damaged.
    """
    if weights_hash == RANDOM:
        if recipe.calibration is not None:
            raise InputError(
                f"recipe {recipe.name} names the calibration {recipe.calibration}, which random weights have no use for"
            )
        return None
    return find(directory, recipe.calibration, weights_hash) if recipe.learns else None


def of_random(model: ActionModel) -> Calibration:
    """A calibration for a model with random weights."""
    return arbitrary(decoders.depth(model), decoders.mlp_width(model))
