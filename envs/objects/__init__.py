"""Things on the table: each module defines one kind or a few of a kind; found by name without a list to keep."""

import importlib
import pkgutil
from functools import cache

from envs.errors import UnknownNameError
from envs.object_model import ObjectModel


@cache
def catalogue() -> dict[str, ObjectModel]:
    """Every object, by name: all `ObjectModel` values of this package's modules."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    models = [value for module in modules for value in vars(module).values() if isinstance(value, ObjectModel)]
    return {model.name: model for model in models}


def find(name: str) -> ObjectModel:
    """The object of this name.

    Raises:
        UnknownNameError: listing the names that exist.
    """
    if name not in catalogue():
        raise UnknownNameError("object", name, catalogue())
    return catalogue()[name]
