"""One file per visual variant: a module `envs/variants/<name>.py` defines `VARIANT`; `_` starts shared parts."""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from envs.errors import EnvError, UnknownNameError
from envs.variant import SETTINGS, Variant

if TYPE_CHECKING:
    from envs.task import Task

BASE = "base"


def names() -> tuple[str, ...]:
    """All variant names, `base` first."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")
    return (BASE, *(name for name in found if name != BASE))


def find(name: str) -> Variant:
    """The variant of this name.

    Raises:
        UnknownNameError: listing the names that exist.
    """
    if name not in names():
        raise UnknownNameError("variant", name, names())
    return importlib.import_module(f"{__name__}.{name}").VARIANT


def suite(task: "Task", setting: str) -> tuple[Variant, ...]:
    """The variants that SIMPLER runs for a task in a setting, `base` first.

    Raises:
        EnvError: if the setting does not exist.
    """
    if setting not in SETTINGS:
        raise EnvError(f"setting must be one of {', '.join(SETTINGS)}; got {setting!r}")
    variants = (find(name) for name in names())
    return tuple(variant for variant in variants if setting in variant.settings and variant.belongs_to(task))
