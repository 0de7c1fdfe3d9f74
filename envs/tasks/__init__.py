"""One file per task: a module `envs/tasks/<name>.py` defines `TASK`; files that start with `_` are shared families."""

import importlib
from typing import TYPE_CHECKING

import envs
from envs.errors import RenderingError, UnknownNameError

if TYPE_CHECKING:
    from envs.task import Task


def names() -> tuple[str, ...]:
    """All task names."""
    return envs.TASKS


def find(name: str) -> "Task":
    """The task of this name.

    Raises:
        UnknownNameError: listing the names that exist.
        RenderingError: if MuJoCo cannot load OpenGL, which it does when it is first imported.
    """
    if name not in names():
        raise UnknownNameError("task", name, names())
    try:
        importlib.import_module("mujoco")
    except Exception as error:  # every OpenGL back end fails with exceptions of its own
        raise RenderingError.because(error) from error
    return importlib.import_module(f"{__name__}.{name}").TASK
