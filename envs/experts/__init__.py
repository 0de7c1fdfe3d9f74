"""Scripted experts: functions of the measured state that solve a task family with actions a policy could send."""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv


class Expert(Protocol):
    """Solves episodes of one environment.

    Attributes:
        done: solved, released, at rest and out of the way.
    """

    done: bool

    def reset(self) -> None:
        """Begin the episode that the environment has just been reset to."""
        ...

    def action(self) -> NDArray[np.float32]:
        """(7,) the next action from the current measured state."""
        ...


def make(env: "ManipulationEnv") -> Expert:
    """The expert for an environment's kind of goal: `EXPERT` of the file named like the goal's module.

    Raises:
        EnvError: if nobody has written one.
    """
    family = type(env.goal).__module__.rpartition("._")[2]
    families = [module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"]
    if family not in families:
        raise EnvError(f"there is no expert for {env.task.name} ({family}); there are experts for {families}")
    return importlib.import_module(f"{__name__}.{family}").EXPERT(env)
