"""A recipe says how a model is run; it never changes what was trained. Recipes are YAML files in `configs/recipes/`."""

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from vla.api import InputError


@dataclass(frozen=True)
class Recipe:
    """How a model is run.

    Attributes:
        name: of the file.
        denoising_steps: of DDIM in the diffusion head.
        guidance_scale: of classifier-free guidance; 1 follows the condition as it is, at half the head's cost.

    Raises:
        InputError: on a value outside its range.
    """

    name: str
    denoising_steps: int
    guidance_scale: float

    def __post_init__(self) -> None:
        steps, scale = self.denoising_steps, self.guidance_scale
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"recipe {self.name}: denoising_steps must be a whole number of at least 1, got {steps!r}")
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale < math.inf:
            raise InputError(f"recipe {self.name}: guidance_scale must be a number of at least 0, got {scale!r}")


def recipes_directory() -> Path:
    """Where recipes are: the installed `cadence_configs`, which is the source tree's `configs/`."""
    spec = importlib.util.find_spec("cadence_configs")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the recipes are not installed; install this project with pip (make setup)")
    return Path(next(iter(spec.submodule_search_locations))) / "recipes"


def names() -> list[str]:
    """All recipes, `none` first."""
    return sorted((path.stem for path in recipes_directory().glob("*.yaml")), key=lambda name: (name != "none", name))


def find(recipe: str | Mapping[str, Any]) -> Recipe:
    """The recipe of this name, or with these values, then called `custom`.

    Raises:
        InputError: if there is none (listing those there are), or it has unknown or missing keys.
    """
    if isinstance(recipe, Mapping):
        return _build("custom", recipe)
    if recipe not in names():
        raise InputError(f"unknown recipe accel={recipe!r}; allowed: {', '.join(names())}")
    return _build(recipe, yaml.safe_load((recipes_directory() / f"{recipe}.yaml").read_text()))


def _build(name: str, values: Any) -> Recipe:
    known = {field.name for field in fields(Recipe)} - {"name"}
    if not isinstance(values, Mapping) or set(values) != known:
        raise InputError(f"recipe {name} must have the keys {sorted(known)}, it has {values!r}")
    return Recipe(name=name, **values)
