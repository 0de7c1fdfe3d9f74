"""Policies without a model: the scripted expert, uniformly random actions, and doing nothing."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.rollout import stable_hash
from vla.api import ActionChunk, Observation, PolicySpec, Quantity

RANDOM_STEP = 0.02  # [m] and [rad] per control step: the size of a demonstrated motion


class Expert(Protocol):
    """A scripted expert that reads the simulator's state instead of the image."""

    def reset(self) -> None: ...

    def action(self) -> NDArray[np.float32]: ...


def spec_of(world: Any, model: str) -> PolicySpec:
    """The spec of a policy that reads no image and speaks the actions of this environment.

    Args:
        world: an unwrapped environment with `action_names`, `action_units` and `control_period` [s].
        model: the policy's name.
    """
    actions = quantities(world.action_names, world.action_units)
    return PolicySpec(cameras=(), state=(), actions=actions, horizon=1, period=world.control_period, model=model)


def quantities(names: Sequence[str], units: Sequence[str]) -> tuple[Quantity, ...]:
    return tuple(Quantity(name, unit) for name, unit in zip(names, units, strict=True))


class ExpertPolicy:
    """The scripted expert of one environment; it sees the state of the simulator, so it plays only that environment."""

    def __init__(self, world: Any, expert: Expert) -> None:
        self.spec = spec_of(world, "expert")
        self._expert = expert

    def infer(self, observation: Observation) -> ActionChunk:
        return _single(self._expert.action(), self.spec)

    def reset(self, session: str) -> None:
        self._expert.reset()


class RandomPolicy:
    """Uniform motion within RANDOM_STEP and a uniform gripper command; the same again for the same session and step."""

    def __init__(self, world: Any) -> None:
        self.spec = spec_of(world, "random")

    def infer(self, observation: Observation) -> ActionChunk:
        draws = np.random.default_rng(stable_hash(observation.session, observation.step))
        action = draws.uniform(-RANDOM_STEP, RANDOM_STEP, len(self.spec.actions))
        action[-1] = draws.uniform(-1.0, 1.0)  # the gripper is the last action of every SIMPLER robot
        return _single(action, self.spec)

    def reset(self, session: str) -> None:
        """Nothing is remembered."""


class HoldPolicy:
    """Does nothing: the hold action of the robot at every step."""

    def __init__(self, world: Any) -> None:
        self.spec = spec_of(world, "hold")
        self._world = world

    def infer(self, observation: Observation) -> ActionChunk:
        return _single(self._world.hold_action, self.spec)

    def reset(self, session: str) -> None:
        """Nothing is remembered."""


def _single(action: NDArray[Any], spec: PolicySpec) -> ActionChunk:
    return ActionChunk(actions=np.asarray(action, dtype=np.float32)[None], period=spec.period)
