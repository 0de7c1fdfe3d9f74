"""One file per task: a module `envs/tasks/<name>.py` defines `TASK`; files that start with `_` are shared families."""

import importlib

import envs
from envs.errors import UnknownNameError
from envs.task import Task


def names() -> tuple[str, ...]:
    """All task names."""
    return envs.TASKS


def find(name: str) -> Task:
    """The task of this name.

    Raises:
        UnknownNameError: listing the names that exist.
    """
    if name not in names():
        raise UnknownNameError("task", name, names())
    return importlib.import_module(f"{__name__}.{name}").TASK
