"""Scripted experts: functions of the measured state that solve a task family with actions a policy could send."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv


class Expert(Protocol):
    """Solves episodes of one environment."""

    done: bool

    def reset(self) -> None:
        """Begin an episode."""
        ...

    def action(self) -> NDArray[np.float32]:
        """(7,) the next action from the current measured state."""
        ...


def make(env: "ManipulationEnv") -> Expert:
    """The expert for an environment's task family.

    Raises:
        EnvError: if nobody has written one.
    """
    from envs.experts.put_on import PutOnExpert
    from envs.tasks._put_on import PutOn

    experts = {PutOn: PutOnExpert}
    if type(env.task) not in experts:
        raise EnvError(f"there is no expert for {env.task.name}; there are experts for {[t.__name__ for t in experts]}")
    return experts[type(env.task)](env)
