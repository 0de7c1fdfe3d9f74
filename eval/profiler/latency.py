"""How long answers take: recipes in turns, stages and end to end measured apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch

from vla.api import Observation, PolicySpec
from vla.policy import VlaPolicy
from vla.timing import Spans, StageTimer, Untimed

STAGES = ("encode", "prefill", "head")
TOTAL = "total"
PERCENTILES = (50, 90, 99)


@dataclass
class Samples:
    """Milliseconds of one policy's answers, in the order they were measured.

    Attributes:
        stages: stage -> one value for each answer with stage timers.
        total: one value for each answer without them, from observation to actions.
    """

    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    total: list[float] = field(default_factory=list)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Stage, or `total` -> {p50, p90, p99} [ms]."""
        everything = {**self.stages, TOTAL: self.total}
        return {stage: {f"p{q}": float(np.percentile(ms, q)) for q in PERCENTILES} for stage, ms in everything.items()}

    @property
    def covered(self) -> float:
        """Share of the median total that the median stages add up to."""
        return float(sum(np.median(ms) for ms in self.stages.values()) / np.median(self.total))


def measure(
    policies: Sequence[VlaPolicy],
    observation: Observation,
    *,
    warm_up: int,
    repeats: int,
    on_round: Callable[[], None] = lambda: None,
) -> list[Samples]:
    """Time every policy on one observation, in turns (A B, B A, A B, …), so that a slow minute hits all alike.

    Args:
        policies: to compare.
        observation: fits all of them.
        warm_up: answers of each before measuring.
        repeats: answers of each with stage timers, and as many without.
        on_round: called after each round over all policies.
    """
    samples = [Samples() for _ in policies]
    for policy in policies:
        for _ in range(warm_up):
            policy.infer(observation)
    for repeat in range(repeats):
        turn = list(zip(policies, samples, strict=True))
        for policy, taken in turn if repeat % 2 == 0 else turn[::-1]:
            timing = staged(policy, observation)
            for stage in STAGES:
                taken.stages[stage].append(timing[stage])
            taken.total.append(end_to_end(policy, observation))
        on_round()
    return samples


def staged(policy: VlaPolicy, observation: Observation) -> Mapping[str, float]:
    """Milliseconds of each stage of one answer."""
    with watching(policy, lambda: StageTimer(policy.device)):
        return policy.infer(observation).timing


def end_to_end(policy: VlaPolicy, observation: Observation) -> float:
    """Milliseconds of one answer without stage timers, which on a GPU make the device wait between stages."""
    with watching(policy, Untimed):
        start = perf_counter()
        policy.infer(observation)  # ends with actions in host memory: nothing is left to wait for
        return 1e3 * (perf_counter() - start)


@contextmanager
def watching(policy: VlaPolicy, spans: Callable[[], Spans]) -> Iterator[None]:
    """Let a policy run its stages inside other spans for a while."""
    before = policy.spans
    policy.spans = spans
    try:
        yield
    finally:
        policy.spans = before


def speedup(baseline: Sequence[float], compared: Sequence[float]) -> dict[str, Any]:
    """How many times faster than the baseline, round by round: the median, and what 80 % of rounds lie between."""
    ratios = np.array(baseline) / np.array(compared)
    low, median, high = np.percentile(ratios, (10, 50, 90))
    return {"speedup": float(median), "speedup_range": [float(low), float(high)]}


def random_observation(spec: PolicySpec, instruction: str) -> Observation:
    """Seeded noise that fits a policy; how long an answer takes does not depend on what is in the image."""
    random = np.random.default_rng(0)
    images = {c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras}
    state = random.uniform(-1, 1, len(spec.state)).astype(np.float32) if spec.state else None
    return Observation(images, instruction, state, session="profile")


def device_name(device: torch.device, processor: str) -> str:
    """What the model runs on, by its product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor
