"""How long answers take: recipes in turns, stages and end to end measured apart."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap
from torch import Tensor

from eval.profiler.ceilings import timed
from eval.statistics import percentile
from vla.api import Observation, PolicySpec
from vla.policy import VlaPolicy
from vla.timing import Spans, StageTimer, Untimed

STAGES = ("encode", "prefill", "head")
PARTS = ("select",)  # of stages, reported by themselves where a recipe has them: choosing and merging visual tokens
TOTAL = "total"
PERCENTILES = (50, 90, 99)
CONFIDENCE = 0.95
RESAMPLES = 2000
_YARDSTICK_SIDE = 512
_BANDS = 5  # of an image, one of which is new in each answer


@dataclass
class Samples:
    """Milliseconds of one policy's answers, in the order they were measured.

    Attributes:
        stages: stage -> one value for each answer with stage timers.
        parts: part of the stages -> as many values, if there is such a part; the time is also in its stage's.
        total: one value for each answer without them, from observation to actions.
    """

    stages: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    parts: dict[str, list[float]] = field(default_factory=dict)
    total: list[float] = field(default_factory=list)

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Stage, part of stages, or `total` -> {p50, p90, p99} [ms], each a measured value."""
        everything = {**self.stages, **self.parts, TOTAL: self.total}
        return {stage: {f"p{q}": percentile(ms, q) for q in PERCENTILES} for stage, ms in everything.items()}

    @property
    def covered(self) -> float:
        """Share of the median total that the median stages add up to."""
        return sum(percentile(ms, 50) for ms in self.stages.values()) / percentile(self.total, 50)


class Yardstick:
    """The same small product again and again: its time changes only with the clock and with who else is computing.

    Attributes:
        milliseconds: one value for each use.
    """

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self._device = device
        self._matrix: Tensor = torch.randn(_YARDSTICK_SIDE, _YARDSTICK_SIDE, generator=generator).to(device)
        self.milliseconds: list[float] = []

    def __call__(self) -> None:
        self.milliseconds.append(1e3 * timed(self._device, lambda: self._matrix @ self._matrix))


def measure(
    policies: Sequence[VlaPolicy],
    observation: Observation,
    *,
    warm_up: int,
    repeats: int,
    yardstick: Callable[[], None],
    on_round: Callable[[Sequence[Samples]], None] = lambda samples: None,
) -> list[Samples]:
    """Time every policy on the same observations, in turns (A B, B A, A B, …), so that a slow minute hits all alike.

    Args:
        policies: to compare.
        observation: fits all of them; each answer is to the next of what `later` makes of it.
        warm_up: answers of each before measuring.
        repeats: answers of each with stage timers, and as many without.
        yardstick: called before each round.
        on_round: called after each round over all policies, with what was measured so far.
    """
    samples, coin = [Samples() for _ in policies], np.random.default_rng(0)
    for policy in policies:
        policy.reset(observation.session)
        for number in range(warm_up):
            policy.infer(later(observation, number))
    for repeat in range(repeats):
        turn = list(zip(policies, samples, strict=True))
        frames = [later(observation, warm_up + 2 * repeat + number) for number in range(2)]
        order = coin.permutation(2)  # so that what happens in every eighth answer falls on both
        with _no_collection():
            yardstick()
            for policy, taken in turn if repeat % 2 == 0 else turn[::-1]:
                for seen, way in zip(frames, order, strict=True):
                    _WAYS[way](policy, seen, taken)
        on_round(samples)
    return samples


def _by_stage(policy: VlaPolicy, seen: Observation, taken: Samples) -> None:
    timing = staged(policy, seen)
    for stage in STAGES:
        taken.stages[stage].append(timing[stage])
    for part, milliseconds in _parts(policy, seen, timing).items():
        taken.parts.setdefault(part, []).append(milliseconds)


def _parts(policy: VlaPolicy, seen: Observation, timing: Mapping[str, float]) -> Mapping[str, float]:
    """Of the stages as they ran; inside recorded or traced ones nobody can look, so of the plain ones instead."""
    remembers = policy.stages.memory is not None or (policy.stages.decoder and policy.stages.decoder.remembers)
    if policy.stages.plain is not None and not remembers and not set(PARTS) & set(timing):
        with policy.plainly():
            timing = staged(policy, seen)
    return {part: timing[part] for part in PARTS if part in timing}


def _whole(policy: VlaPolicy, seen: Observation, taken: Samples) -> None:
    taken.total.append(end_to_end(policy, seen))


_WAYS = (_by_stage, _whole)


def staged(policy: VlaPolicy, observation: Observation) -> Mapping[str, float]:
    """Milliseconds of each stage of one answer."""
    with watching(policy, lambda: StageTimer(policy.device)):
        return policy.infer(observation).timing


def end_to_end(policy: VlaPolicy, observation: Observation) -> float:
    """Milliseconds of one answer without stage timers, which on a GPU make the device wait between stages."""
    with watching(policy, Untimed):
        return 1e3 * timed(policy.device, lambda: policy.infer(observation))


@contextmanager
def watching(policy: VlaPolicy, spans: Callable[[], Spans]) -> Iterator[None]:
    """Let a policy run its stages inside other spans for a while."""
    before = policy.spans
    policy.spans = spans
    try:
        yield
    finally:
        policy.spans = before


def speedup(baseline: Sequence[float], compared: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """How many times faster than the baseline: ratio of the medians, and its 95 % interval.

    The interval is the percentile bootstrap over rounds; the two values of one round stay together.
    """

    def ratio(slower: np.ndarray, faster: np.ndarray, axis: int = -1) -> np.ndarray:
        return _median(slower, axis) / _median(faster, axis)

    pairs = (np.asarray(baseline, np.float64), np.asarray(compared, np.float64))
    middle = float(ratio(*pairs))
    if len(baseline) < 2:
        return middle, (middle, middle)
    found = bootstrap(
        pairs,
        ratio,
        paired=True,
        vectorized=True,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return middle, (float(found.low), float(found.high))


def random_observation(spec: PolicySpec, instruction: str) -> Observation:
    """Seeded noise that fits a policy; how long an answer takes does not depend on what noise it is."""
    random = np.random.default_rng(0)
    images = {c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras}
    state = random.uniform(-1, 1, len(spec.state)).astype(np.float32) if spec.state else None
    return Observation(images, instruction, state, session="profile")


def later(observation: Observation, number: int) -> Observation:
    """What is seen so many answers later: each time another fifth of every image is new.

    It matters to policies that remember what they saw: a still would flatter them.
    """
    images = {}
    for name, image in observation.images.items():
        bands = np.array_split(image, _BANDS)
        newest = [number - (number - band) % _BANDS for band in range(_BANDS)]  # when each was drawn; negative: never
        drawn = [band if at < 0 else _noise(at, band) for at, band in zip(newest, bands, strict=True)]
        images[name] = np.concatenate(drawn)
    return replace(observation, images=images, step=observation.step + number)


def _noise(seed: int, like: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, like.shape, dtype=np.uint8)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector of cyclic garbage waits, as in `timeit`."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    return np.percentile(values, 50, method="inverted_cdf", axis=axis)
