"""The learner acts, the expert says what it would have done instead (DAgger, Ross et al., 2011).

A cloned policy drifts to where no demonstration was. Here it acts for stretches of an episode, and what is recorded
at every step is the expert's action; in the end the expert takes over and solves the task, so an episode that the
learner led astray shows the way back.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.collection import Request, World, make_world
from eval.rollout import observe
from eval.worlds import robot_of
from vla.api import InputError, Policy
from vla.chunking import OpenLoop

_LEARNER_STEPS, _EXPERT_STEPS = (4, 16), (1, 8)  # of a stretch, both ends included


@dataclass(frozen=True)
class Learner:
    """Who acts besides the expert.

    Attributes:
        model, checkpoint, recipe: of the policy.
        share: of an episode's steps within which the learner may act; then the expert goes on alone.
        execute: actions taken from each chunk.

    Raises:
        InputError: on a value outside its range.
    """

    model: str
    checkpoint: str | None
    recipe: str
    share: float
    execute: int

    def __post_init__(self) -> None:
        if not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise InputError(f"share must be a number above 0 and at most 1, got {self.share!r}")

    def policy(self, robot: str) -> Policy:
        """The policy, on one thread: each worker process has its own."""
        import torch

        from vla.policy import load_policy

        torch.set_num_threads(1)
        return load_policy(self.model, self.checkpoint, self.recipe, "cpu", "float32", "trained", robot=robot)

    def world(self, request: Request, task: str, variant: str) -> World:
        """A task's environment in which the learner acts for stretches, and its expert."""
        env, expert = make_world(request, task, variant)
        return Led(env, _policy(self, robot_of(task)), self.execute, self.share), expert


@lru_cache(maxsize=2)
def _policy(learner: Learner, robot: str) -> Policy:
    return learner.policy(robot)


class Led(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Executes the learner's action in place of the given one while the learner leads.

    Args:
        env: a `ManipulationEnv` with images.
        policy: the learner.
        execute: actions taken from each chunk.
        share: of the episode's steps within which the learner may lead.
    """

    def __init__(self, env: Any, policy: Policy, execute: int, share: float) -> None:
        super().__init__(env)
        self._policy, self._chunking, self._share = policy, OpenLoop(execute), share

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        world: Any = self.env.unwrapped
        self.leads = stretches(world.max_episode_steps, self._share, np.random.default_rng([seed or 0, 1]))
        self._session, self._step = f"{world.task.name}/{seed}", 0
        self._policy.reset(self._session)
        self._chunking.reset()
        return self._seen(*self.env.reset(seed=seed, options=options))

    def step(self, action: NDArray[np.float32]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._step < len(self.leads) and self.leads[self._step]:
            action = self._own_action()
        self._step += 1
        raw, reward, ended, truncated, info = self.env.step(action)
        return self._seen(raw, info)[0], reward, ended, truncated, info

    def _own_action(self) -> NDArray[np.float32]:
        if self._chunking.needs_chunk(self._step) or not self.leads[self._step - 1]:  # an older chunk is out of date
            observation = observe(self._raw, self._instruction, self._session, self._step)
            self._chunking.reset()
            self._chunking.add(self._step, self._policy.infer(observation))
        return self._chunking.action(self._step)

    def _seen(self, raw: Any, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._raw, self._instruction = raw, info["instruction"]
        return raw, info


def stretches(steps: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(steps * share,) whether the learner leads, in stretches of random length; the first is as likely either's."""
    leads: list[bool] = []
    learner = bool(rng.integers(2))
    while len(leads) < steps * share:
        low, high = _LEARNER_STEPS if learner else _EXPERT_STEPS
        leads += [learner] * int(rng.integers(low, high + 1))
        learner = not learner
    return np.array(leads[: int(steps * share)], bool)
