"""Two policies on the same starts of a task: which is better, by how much, and whether one is at least not worse."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root_scalar
from scipy.stats import binomtest, bootstrap, norm
from statsmodels.stats.multitest import multipletests

from eval.statistics import Interval, design_effect
from vla.api import InputError

RESAMPLES = 10_000


@dataclass(frozen=True)
class Pairs:
    """Outcomes of two policies on the same episodes of one task.

    Attributes:
        baseline: (pairs,) whether the first policy succeeded.
        run: (pairs,) whether the second did.
        starts: (pairs,) number of the start, ascending in the order of running; episodes with the same number had the
            same start under several variants, so that they are not independent.

    Raises:
        InputError: if the lengths differ, or there are no pairs.
    """

    baseline: NDArray[np.bool_]
    run: NDArray[np.bool_]
    starts: NDArray[np.intp]

    def __post_init__(self) -> None:
        sizes = [len(values) for values in (self.baseline, self.run, self.starts)]
        if len(set(sizes)) > 1 or not sizes[0]:
            raise InputError(f"pairs need as many outcomes of each policy as starts, at least one; got {sizes}")

    @property
    def n(self) -> int:
        """Number of pairs of episodes."""
        return len(self.run)

    @property
    def gained(self) -> int:
        """Episodes that only the second policy solved."""
        return int(np.sum(self.run & ~self.baseline))

    @property
    def lost(self) -> int:
        """Episodes that only the first policy solved."""
        return int(np.sum(self.baseline & ~self.run))

    @property
    def difference(self) -> float:
        """Success rate of the second policy minus that of the first."""
        return (self.gained - self.lost) / self.n

    @cached_property
    def net(self) -> NDArray[np.int64]:
        """(starts,) episodes gained minus lost on each start, in order."""
        change = self.run.astype(np.int64) - self.baseline
        return sums_by_start(change, self.starts).astype(np.int64)

    @property
    def signs(self) -> NDArray[np.int64]:
        """(starts,) 1 where the second policy solved more episodes of a start, -1 where the first did, 0 elsewhere."""
        return np.sign(self.net)

    @cached_property
    def design_effect(self) -> float:
        """See `eval.statistics.design_effect`; 1 when each start was run once."""
        change = self.run.astype(np.float64) - self.baseline
        return design_effect(change.tolist(), self.starts.tolist())


class NonInferiority(NamedTuple):
    """Whether the second policy is worse by less than a margin, one-sided at (1 - confidence) / 2."""

    margin: float
    p_value: float
    non_inferior: bool


def mcnemar_exact(signs: NDArray[np.int64]) -> float:
    """Two-sided p-value of the exact McNemar test: is the winner of a start that only one policy solved a fair coin?

    A start that was run under several variants counts once, for the policy that solved more of them: episodes of one
    start are not independent coins.

    Args:
        signs: of each start, see `Pairs.signs`.
    """
    won, lost = int(np.sum(signs > 0)), int(np.sum(signs < 0))
    if not won + lost:
        return 1.0
    return float(binomtest(won, won + lost).pvalue)


def difference_interval(pairs: Pairs, confidence: float = 0.95) -> Interval:
    """Tango's score interval of the difference of paired rates (Statistics in Medicine 17:891, 1998).

    It keeps a width when the policies never differ. Counts of starts run several times are divided by their design
    effect first.

    Raises:
        InputError: if confidence is outside 0..1.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}")
    gained, lost, n = _effective(pairs)
    quantile, middle = float(norm.ppf((1 + confidence) / 2)), pairs.difference

    def end(outer: float, level: float) -> float:
        def excess(difference: float) -> float:
            return _score(difference, gained, lost, n) - level

        if excess(outer) * excess(middle) >= 0:  # all differences up to -1 or 1 are possible
            return outer
        return float(root_scalar(excess, bracket=sorted((outer, middle)), method="brentq").root)

    return Interval(end(-1.0, quantile), end(1.0, -quantile))


def non_inferiority(pairs: Pairs, margin: float, confidence: float = 0.95) -> NonInferiority:
    """Tango's score test against "worse by `margin` or more"; it agrees with the lower end of the interval.

    Args:
        margin: largest loss of success rate that still counts as none, between 0 and 1.

    Raises:
        InputError: if margin is outside 0..1.
    """
    if not 0 < margin < 1:
        raise InputError(f"margin must lie between 0 and 1, got {margin}")
    p_value = float(norm.sf(_score(-margin, *_effective(pairs))))
    return NonInferiority(margin, p_value, p_value < (1 - confidence) / 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values that may all be held against one level, in the order given (Holm, 1979)."""
    return np.asarray(multipletests(p_values, method="holm")[1]).tolist() if len(p_values) else []


def sums_by_start(values: NDArray[Any], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """(starts,) the sum of the values of each start, in the order of the starts' numbers."""
    _, place = np.unique(starts, return_inverse=True)
    return np.bincount(place, weights=values).astype(np.float64)


def shares_by_start(values: NDArray[Any], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """(starts,) numbers whose mean is the mean of all values; a start that was run more often weighs more."""
    sums = sums_by_start(values, starts)
    return sums * (len(sums) / len(values))


def suite_interval(
    tasks: Sequence[NDArray[np.float64]], confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Interval of the macro average, the mean over tasks of each task's mean: a stratified percentile bootstrap.

    Starts are drawn again within their task, so that no task gains weight; values that belong to one start stay
    together, so differences stay paired.

    Args:
        tasks: for each task (starts,) values whose mean is the task's figure, see `shares_by_start`.
        resamples: how often starts are drawn again.
        seed: of the resampling; the same seed gives the same interval.

    Raises:
        InputError: without tasks, or for a task with fewer than two starts.
    """
    if not tasks or min(map(len, tasks)) < 2:
        raise InputError(f"a bootstrap needs at least 2 starts of each task, got {[len(values) for values in tasks]}")

    def macro(*samples: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.mean([np.mean(sample, axis=axis) for sample in samples], axis=0)

    interval = bootstrap(
        tuple(tasks),
        macro,
        confidence_level=confidence,
        n_resamples=resamples,
        method="percentile",
        batch=1000,  # bounds the memory of large suites
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(interval.low), float(interval.high))


def _effective(pairs: Pairs) -> tuple[float, float, float]:
    """(gained, lost, n) worth of independent pairs."""
    effect = pairs.design_effect
    return pairs.gained / effect, pairs.lost / effect, pairs.n / effect


def _score(difference: float, gained: float, lost: float, n: float) -> float:
    """Tango's statistic: the observed difference minus an assumed one, in standard errors under the assumption."""
    linear = (2 * n - gained + lost) * difference - gained - lost
    constant = -lost * difference * (1 - difference)
    share_lost = (np.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)  # most likely if assumed
    variance = n * (2 * share_lost + difference * (1 - difference))
    return float((gained - lost - n * difference) / np.sqrt(max(variance, 1e-12)))  # 0 where it cannot be otherwise
