"""How sure a measured success rate is, and percentiles of latencies; each interval is a library's, never our own."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from vla.api import InputError


class Interval(NamedTuple):
    """A confidence interval of a success rate, both ends within 0..1."""

    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval: honest at small n and at rates near 0 and 1; the one to show.

    Args:
        successes: episodes that succeeded.
        n: episodes that were scored.
        confidence: coverage, within 0..1.

    Raises:
        InputError: for no episodes, or more successes than episodes.
    """
    return _interval(successes, n, confidence, "wilson")


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact interval of Clopper and Pearson: never covers less than `confidence`, wider than Wilson's.

    Raises:
        InputError: for no episodes, or more successes than episodes.
    """
    return _interval(successes, n, confidence, "beta")


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` % of the samples do not exceed.

    A measured value, not one between two: a 99th percentile of 30 latencies is the largest of them.

    Raises:
        InputError: without samples.
    """
    if not samples:
        raise InputError("a percentile needs at least one sample, got none")
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent, method="inverted_cdf"))


def _interval(successes: int, n: int, confidence: float, method: Literal["wilson", "beta"]) -> Interval:
    if n < 1:
        raise InputError(f"a success rate needs at least one scored episode, got {n}")
    if not 0 <= successes <= n:
        raise InputError(f"successes must lie within 0..{n}, got {successes}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
    from statsmodels.stats.proportion import proportion_confint  # a second to import: not before the first episode

    low, high = np.asarray(proportion_confint(successes, n, alpha=1 - confidence, method=method), dtype=np.float64)
    # rounding can put an end a hair outside 0..1 or on the wrong side of the rate itself
    return Interval(max(0.0, min(float(low), successes / n)), min(1.0, max(float(high), successes / n)))
