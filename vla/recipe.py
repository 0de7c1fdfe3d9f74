"""A recipe says how a model is run; it never changes what was trained. Recipes are YAML files in `configs/recipes/`."""

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vla.accelerate.techniques import SLOTS, Plugs, plugs_of
from vla.api import InputError

_NUMBERS = ("denoising_steps", "guidance_scale")


@dataclass(frozen=True)
class Recipe:
    """How a model is run.

    Attributes:
        name: of the file.
        denoising_steps: of DDIM in the diffusion head.
        guidance_scale: of classifier-free guidance; 1 follows the condition as it is, at half the head's cost.
        plugs: slot -> the techniques that fill it.

    Raises:
        InputError: on a value outside its range.
    """

    name: str
    denoising_steps: int
    guidance_scale: float
    plugs: Plugs = field(default_factory=lambda: plugs_of("none", {}))

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
    if not isinstance(values, Mapping) or not set(_NUMBERS) <= set(values) <= {*_NUMBERS, *SLOTS}:
        raise InputError(
            f"recipe {name} must have the keys {list(_NUMBERS)} and may fill the slots {', '.join(SLOTS)}; "
            f"it has {values!r}"
        )
    slots = {slot: value for slot, value in values.items() if slot in SLOTS}
    return Recipe(name, values["denoising_steps"], values["guidance_scale"], plugs_of(name, slots))
