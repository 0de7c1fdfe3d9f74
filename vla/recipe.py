"""A recipe says how a model is run; it never changes what was trained. Recipes are YAML files in `configs/recipes/`."""

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from vla.accelerate.techniques import SLOTS, Plugs, plugs_of
from vla.api import InputError

_NUMBERS = ("denoising_steps", "guidance_scale")
_CALIBRATION = "calibration"


@dataclass(frozen=True)
class Recipe:
    """How a model is run.

    Attributes:
        name: of the file.
        denoising_steps: of DDIM in the diffusion head.
        guidance_scale: of classifier-free guidance; 1 follows the condition as it is, at half the head's cost.
        plugs: slot -> the techniques that fill it.
        calibration: file that techniques take what they learned from data from, beside the recipe's own file if it has
            no absolute path; None: `calibration.json` of the checkpoint.

    Raises:
        InputError: on a value outside its range.
    """

    name: str
    denoising_steps: int
    guidance_scale: float
    plugs: Plugs = field(default_factory=lambda: plugs_of("none", {}))
    calibration: str | None = None

    def __post_init__(self) -> None:
        steps, scale = self.denoising_steps, self.guidance_scale
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"recipe {self.name}: denoising_steps must be a whole number of at least 1, got {steps!r}")
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale < math.inf:
            raise InputError(f"recipe {self.name}: guidance_scale must be a number of at least 0, got {scale!r}")
        if self.calibration is not None and not isinstance(self.calibration, str):
            raise InputError(f"recipe {self.name}: calibration must name a file, got {self.calibration!r}")

    @property
    def learns(self) -> bool:
        """Whether a technique takes something from a calibration."""
        return any(technique.learns for filled in self.plugs.values() for technique in filled)

    def calibrated(self, model: Any, calibration: Any) -> "Recipe":
        """The recipe with what its techniques take from the calibration of a checkpoint, None if there is none.

        Raises:
            InputError: if a technique needs one and there is none.
        """
        try:
            plugs = {
                slot: tuple(technique.calibrated(model, calibration) for technique in filled)
                for slot, filled in self.plugs.items()
            }
        except InputError as error:
            raise InputError(f"recipe {self.name}: {error}") from error
        return replace(self, plugs=plugs)


def recipes_directory() -> Path:
    """Where recipes are: the installed `cadence_configs`, which is the source tree's `configs/`."""
    spec = importlib.util.find_spec("cadence_configs")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the recipes are not installed; install this project with pip (make setup)")
    return Path(next(iter(spec.submodule_search_locations))) / "recipes"


def names() -> list[str]:
    """All recipes, `none` first."""
    return sorted((path.stem for path in recipes_directory().glob("*.yaml")), key=lambda name: (name != "none", name))


def find(recipe: "str | Mapping[str, Any] | Recipe") -> Recipe:
    """The recipe of this name, in this file of your own, or with these values, then called `custom`.

    Args:
        recipe: a file in `configs/recipes/` without its ending, the path of a YAML file, what such a file holds, or a
            recipe, which is returned as it is.

    Raises:
        InputError: if there is none (listing those there are), or it has unknown or missing keys.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return _build("custom", recipe)
    if recipe.endswith(".yaml") and Path(recipe).is_file():
        return _read(Path(recipe))
    if recipe not in names():
        raise InputError(f"unknown recipe accel={recipe!r}; allowed: {', '.join(names())}, or a YAML file of your own")
    return _read(recipes_directory() / f"{recipe}.yaml")


def _read(path: Path) -> Recipe:
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is not a YAML file: {error}") from error
    return _build(path.stem, values, path.parent)


def _build(name: str, values: Any, directory: Path | None = None) -> Recipe:
    """A recipe of values; a relative file that it names is in the directory, or where the process runs."""
    if not isinstance(values, Mapping) or not set(_NUMBERS) <= set(values) <= {*_NUMBERS, *SLOTS, _CALIBRATION}:
        raise InputError(
            f"recipe {name} must have the keys {list(_NUMBERS)} and may fill the slots {', '.join(SLOTS)}; "
            f"{_CALIBRATION} may name a file; it has {values!r}"
        )
    slots = {slot: value for slot, value in values.items() if slot in SLOTS}
    plugs, named = plugs_of(name, slots), values.get(_CALIBRATION)
    if directory is not None and isinstance(named, str):
        named = str(directory / named)
    made = Recipe(name, values["denoising_steps"], values["guidance_scale"], plugs, named)
    if named is not None and not made.learns:
        raise InputError(
            f"recipe {name} names the calibration {named}, but none of its techniques takes anything from it"
        )
    return made
