"""What is measured: one model under several recipes, and what each of them costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eval.profiler.ceilings import timed
from eval.profiler.cost import Cost, count
from eval.profiler.latency import later, random_observation
from eval.profiler.memory import forget_peak_memory, memory_in_use, peak_memory
from eval.profiler.settings import Settings
from vla import recipe as recipes
from vla.api import Observation
from vla.policy import VlaPolicy, load_policy
from vla.precision import find_device
from vla.recipe import Recipe


@dataclass(frozen=True)
class Subject:
    """A policy to measure, and what was found out about it beforehand.

    Attributes:
        peak_bytes: the most memory in use during an answer, without what other recipes keep.
        first_answer_ms: duration of the first answer, which may compile or capture.
        actions: (horizon, A) of that answer in physical units.
    """

    policy: VlaPolicy
    cost: Cost
    peak_bytes: int
    first_answer_ms: float
    actions: NDArray[np.float32]


class Loader:
    """Builds policies of one model; its weights are in memory once, from the first recipe that leaves them as they are.

    Of those that a later recipe changes, only these are there again; a recipe that comes before loads its own.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._settings, self._device = settings, device
        self._before_all = memory_in_use(device)
        self._shared: VlaPolicy | None = None
        self._shared_bytes = 0

    def build(self, recipe: Recipe) -> tuple[VlaPolicy, int]:
        """The policy, and how much memory is in use that it has no part in.

        Raises:
            InputError: as `load`.
        """
        others = memory_in_use(self._device) - self._before_all
        if self._shared is not None:
            policy = self._shared.with_recipe(recipe)
            return policy, others - self._shared_bytes + _left_out(self._shared, policy)
        policy = self._load(recipe)
        if not recipe.plugs["weights"]:
            self._shared = policy
            self._shared_bytes = memory_in_use(self._device) - self._before_all - others
        return policy, others

    def _load(self, recipe: Recipe) -> VlaPolicy:
        asked = self._settings
        return load_policy(
            asked.model,
            asked.checkpoint,
            recipe,
            asked.device,
            asked.dtype,
            asked.init,
            asked.dataset,
        )


def _left_out(shared: VlaPolicy, policy: VlaPolicy) -> int:
    """Bytes of the first one's weights that are not the second one's."""
    own = set(map(id, policy.model.parameters()))
    return sum(weight.nbytes for weight in shared.model.parameters() if id(weight) not in own)


def load(settings: Settings) -> tuple[list[Subject], Observation]:
    """Load the model, share it among the recipes, and count what each costs.

    Returns:
        One subject per recipe, in order, and the observation that they answer.

    Raises:
        InputError: if a model, recipe, checkpoint, device or dtype cannot be used, or does not fit into memory.
    """
    chosen = [recipes.find(name) for name in settings.accel]  # before a large model is loaded in vain
    device = find_device(settings.device)
    loader = Loader(settings, device)
    subjects = []
    for recipe in chosen:
        policy, others = loader.build(recipe)
        subjects.append(_examine(policy, random_observation(policy.spec, settings.instruction), others))
    return subjects, random_observation(subjects[0].policy.spec, settings.instruction)


def differences(subjects: Sequence[Subject]) -> list[float]:
    """How far the actions of each are from the first's: the largest difference of any number of an action.

    Each number is compared with the largest it is in the first's chunk.
    """
    reference = subjects[0].actions
    scale = np.abs(reference).max(axis=0)  # (A,)
    apart = [np.abs(subject.actions - reference).max(axis=0) for subject in subjects]
    return [float(np.max(np.divide(far, scale, out=far.copy(), where=scale > 0))) for far in apart]


def _examine(policy: VlaPolicy, observation: Observation, others: int) -> Subject:
    answers: list[NDArray[np.float32]] = []
    first = timed(policy.device, lambda: answers.append(policy.infer(observation).actions))
    forget_peak_memory(policy.device)
    policy.infer(later(observation, 1))  # the first answer also pays for what libraries set up once
    peak = peak_memory(policy.device) - others
    return Subject(policy, count(policy, later(observation, 2)), peak, 1e3 * first, answers[0])
