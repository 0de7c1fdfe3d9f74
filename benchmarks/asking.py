"""Worlds that show nothing, ask in other words, or ask for something else: what `benchmarks.language` measures with."""

from typing import Any

import gymnasium
import numpy as np

from eval.rollout import stable_hash
from vla.api import InputError
from vla.training.wordings import Wordings


class Blank(gymnasium.ObservationWrapper):
    """Every image is black."""

    def observation(self, observation: Any) -> Any:
        return {**observation, "images": {name: np.zeros_like(image) for name, image in observation["images"].items()}}


class Reworded(gymnasium.Wrapper):
    """Asks in other words, the same throughout an episode."""

    def __init__(self, env: gymnasium.Env, wordings: Wordings) -> None:
        super().__init__(env)
        self._wordings, self._seed = wordings, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._seed = seed or 0
        raw, info = self.env.reset(seed=seed, options=options)
        return raw, self._said(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *rest, info = self.env.step(action)
        return *rest, self._said(info)  # type: ignore[return-value]

    def _said(self, info: dict[str, Any]) -> dict[str, Any]:
        others = self._wordings.of(info["instruction"])
        if not others:
            raise InputError(f"no other words for {info['instruction']!r}; add a pattern to the wordings")
        return {**info, "instruction": others[stable_hash(self._seed, "words") % len(others)]}


class ToldOther(gymnasium.Wrapper):
    """Asks for another goal of the scene, and goes on judging the task's own."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = self.env.reset(seed=seed, options={**(options or {}), "goal": 0})
        others = len(info["instructions"]) - 1
        goal = 1 + stable_hash(seed, "goal") % others
        raw, info = self.env.reset(seed=seed, options={**(options or {}), "goal": goal})
        world: Any = self.env.unwrapped
        self._own = world.start.goals[0].judge(world.world)
        self._own.update()
        return raw, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        *rest, info = self.env.step(action)
        self.solved = bool(self._own.update().official)
        return *rest, info  # type: ignore[return-value]
