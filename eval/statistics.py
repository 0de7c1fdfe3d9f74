"""How sure a measured success rate is, and percentiles of latencies; each interval is a library's, never our own."""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from vla.api import InputError


class Interval(NamedTuple):
    """A confidence interval of a success rate, both ends within 0..1, or of a difference of two, within -1..1."""

    low: float
    high: float


class Posterior(NamedTuple):
    """What is believed of a success rate: the posterior mean and an interval with equal tails."""

    mean: float
    low: float
    high: float


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval: honest at small n and at rates near 0 and 1; the one to show.

    Args:
        successes: episodes that succeeded; not whole when divided by a `design_effect`.
        n: episodes that were scored, divided likewise.
        confidence: coverage, within 0..1.

    Raises:
        InputError: for no episodes, or more successes than episodes.
    """
    return _interval(successes, n, confidence, "wilson")


def clopper_pearson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """The exact interval of Clopper and Pearson: never covers less than `confidence`, wider than Wilson's.

    Raises:
        InputError: for no episodes, or more successes than episodes.
    """
    return _interval(successes, n, confidence, "beta")


def posterior(successes: float, n: float, confidence: float = 0.95) -> Posterior:
    """Beta posterior of a success rate under the uniform prior Beta(1, 1), as in TRI's LBM study (arXiv 2507.05331).

    Raises:
        InputError: for no episodes, or more successes than episodes.
    """
    _check(successes, n, confidence)
    from scipy.stats import beta

    believed = beta(1 + successes, 1 + n - successes)
    low, high = believed.interval(confidence)
    return Posterior(float(believed.mean()), float(low), float(high))


def design_effect(values: Sequence[float], starts: Sequence[Hashable]) -> float:
    """How many episodes count as one independent episode when a start was run several times, for example in variants.

    Divide counts by it before asking for an interval (Rao and Scott, 1992): the variance of the mean with starts as
    clusters over the variance with every episode on its own. It lies between 1 (each start once, or repeats that have
    nothing in common) and the mean number of repeats (repeats that say nothing new), which is also the answer where
    the values do not vary.

    Args:
        values: one per episode: 0 or 1, or the difference of two policies.
        starts: which start each episode had.

    Raises:
        InputError: without values, or with another number of starts.
    """
    if not len(values) or len(values) != len(starts):
        raise InputError(f"a design effect needs a start for each value, got {len(values)} and {len(starts)}")
    numbers = {start: number for number, start in enumerate(dict.fromkeys(starts))}
    repeats, count = len(values) / len(numbers), len(numbers)
    spread = np.asarray(values, dtype=np.float64) - np.mean(values)
    if count == len(values):
        return 1.0
    if count == 1 or not spread.any():
        return repeats
    by_start = np.bincount([numbers[start] for start in starts], weights=spread)
    return float(np.clip(count / (count - 1) * np.sum(by_start**2) / np.sum(spread**2), 1.0, repeats))


def macro_interval(rates: Sequence[float], counts: Sequence[float]) -> Interval:
    """Interval of the mean of several tasks' success rates: Wilson's, at the number of episodes that mean is worth.

    The mean of T equal rates varies like one rate of `T**2 / sum(1 / counts)` episodes; that of T different ones, of as
    many episodes each, varies less. Near rates of 0 and 1 it keeps its promise, where `mean_interval` does not.

    Args:
        rates: of each task, within 0..1.
        counts: scored episodes of each, divided by their `design_effect`.

    Raises:
        InputError: without rates, with another number of counts, or for a task without episodes.
    """
    if not len(rates) or len(rates) != len(counts) or min(counts) <= 0:
        raise InputError(f"a mean needs episodes for each rate, got {len(rates)} rates and counts {list(counts)}")
    n = len(rates) ** 2 / float(np.sum(1 / np.asarray(counts, dtype=np.float64)))
    return wilson(float(np.mean(rates)) * n, n)


def mean_interval(estimates: Sequence[float], intervals: Sequence[Sequence[float]]) -> Interval:
    """Interval of the mean of independent estimates, made of theirs (MOVER: Zou and Donner, 2008).

    Unlike a bootstrap it keeps a width where nothing varied, because each of the given intervals does.

    Raises:
        InputError: without estimates, or with another number of intervals.
    """
    if not len(estimates) or len(estimates) != len(intervals):
        raise InputError(f"a mean needs an interval for each estimate, got {len(estimates)} and {len(intervals)}")
    values, ends = np.asarray(estimates, dtype=np.float64), np.asarray(intervals, dtype=np.float64)
    below, above = (np.linalg.norm(values - ends[:, end]) / len(values) for end in (0, 1))
    return Interval(float(values.mean() - below), float(values.mean() + above))


def hull(*intervals: Interval) -> Interval:
    """The interval that just holds all of these."""
    return Interval(min(each.low for each in intervals), max(each.high for each in intervals))


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` % of the samples do not exceed.

    A measured value, not one between two: a 99th percentile of 30 latencies is the largest of them.

    Raises:
        InputError: without samples.
    """
    if not samples:
        raise InputError("a percentile needs at least one sample, got none")
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent, method="inverted_cdf"))


def _interval(successes: float, n: float, confidence: float, method: Literal["wilson", "beta"]) -> Interval:
    _check(successes, n, confidence)
    from statsmodels.stats.proportion import proportion_confint  # a second to import: not before the first episode

    low, high = np.asarray(proportion_confint(successes, n, alpha=1 - confidence, method=method), dtype=np.float64)
    # rounding can put an end a hair outside 0..1 or on the wrong side of the rate itself
    return Interval(max(0.0, min(float(low), successes / n)), min(1.0, max(float(high), successes / n)))


def _check(successes: float, n: float, confidence: float) -> None:
    if n <= 0:
        raise InputError(f"a success rate needs at least one scored episode, got {n}")
    if not 0 <= successes <= n:
        raise InputError(f"successes must lie within 0..{n}, got {successes}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
