"""Intervals and percentiles."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from eval.statistics import (
    clopper_pearson,
    design_effect,
    macro_interval,
    mean_interval,
    percentile,
    posterior,
    wilson,
)
from vla.api import InputError

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.277533), (5, 24, 0.092448, 0.404705), (12, 24, 0.314274, 0.685726), (24, 24, 0.862024, 1.0)],
)
def test_wilson_gives_the_values_of_its_closed_form(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
@given(counts)
def test_an_interval_holds_the_rate_within_0_and_1(interval, count) -> None:
    successes, n = count
    low, high = interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_swapping_success_and_failure_mirrors_the_interval(interval) -> None:
    low, high = interval(7, 24)
    assert interval(17, 24) == pytest.approx((1 - high, 1 - low))


@given(counts)
def test_clopper_pearson_leaves_at_most_the_promised_tail_on_each_side(count) -> None:
    successes, n = count
    low, high = clopper_pearson(successes, n)
    assert low == 0 or binom.sf(successes - 1, n, low) == pytest.approx(0.025)
    assert high == 1 or binom.cdf(successes, n, high) == pytest.approx(0.025)


def test_more_episodes_make_a_narrower_interval() -> None:
    widths = [high - low for low, high in (wilson(n // 2, n) for n in (24, 50, 100, 500))]
    assert all(wider > narrower for wider, narrower in pairwise(widths))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(InputError):
        wilson(successes, n)


@pytest.mark.parametrize("estimate", [wilson, clopper_pearson, posterior])
@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_an_impossible_confidence_is_refused(estimate, confidence: float) -> None:
    with pytest.raises(InputError, match="confidence"):
        estimate(1, 2, confidence)


@given(counts)
def test_the_posterior_is_that_of_a_uniform_prior(count) -> None:
    successes, n = count
    mean, low, high = posterior(successes, n)
    assert mean == pytest.approx((successes + 1) / (n + 2))
    # a Beta's distribution function at whole parameters is a binomial's
    assert binom.sf(successes, n + 1, low) == pytest.approx(0.025)
    assert binom.cdf(successes, n + 1, high) == pytest.approx(0.025)


def test_starts_run_once_are_independent() -> None:
    assert design_effect([1, 0, 1, 1], ["a", "b", "c", "d"]) == 1.0


def test_repeats_that_say_nothing_new_count_once() -> None:
    starts = [start for start in range(20) for _ in range(4)]
    assert design_effect([float(start % 3 == 0) for start in starts], starts) == 4.0
    assert design_effect([1.0] * 80, starts) == 4.0
    assert design_effect([0.0, 1.0], [7, 7]) == 2.0


def test_intervals_of_starts_run_in_variants_keep_their_promise() -> None:
    random, covered, naively = np.random.default_rng(0), 0, 0
    starts = np.repeat(np.arange(25), 9)
    for _ in range(300):
        solved = np.repeat(random.random(25), 9) + 0.3 * random.normal(size=225) < 0.5  # in half of all cases
        effect = design_effect(solved.tolist(), starts.tolist())
        low, high = wilson(solved.sum() / effect, 225 / effect)
        covered += low <= 0.5 <= high
        naively += wilson(solved.sum(), 225).low <= 0.5 <= wilson(solved.sum(), 225).high
    assert covered >= 0.91 * 300
    assert naively < 0.75 * 300


def test_the_interval_of_one_estimate_is_its_own_and_of_equal_ones_shrinks_with_their_number() -> None:
    low, high = wilson(6, 24)
    assert mean_interval([0.25], [(low, high)]) == pytest.approx((low, high))
    four = mean_interval([0.25] * 4, [(low, high)] * 4)
    assert four == pytest.approx((0.25 - (0.25 - low) / 2, 0.25 + (high - 0.25) / 2))


@given(counts)
def test_the_interval_of_one_task_s_mean_is_its_own(count) -> None:
    successes, n = count
    assert macro_interval([successes / n], [n]) == pytest.approx(wilson(successes, n))


@pytest.mark.parametrize(
    "truth", [[0.95] * 9, [0.98] * 9, [0.995] * 9, [0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99, 1.0, 1.0], [0.96] * 2]
)
def test_the_interval_of_a_mean_near_100_percent_covers_it_as_often_as_it_says(truth: list[float]) -> None:
    n, draws = 24, 2000
    means = np.random.default_rng(0).binomial(n, truth, size=(draws, len(truth))).mean(axis=1) / n
    seen, times = np.unique(means.round(9), return_counts=True)
    intervals = [
        macro_interval([mean] * len(truth), [n] * len(truth)) for mean in seen
    ]  # equal n: only the mean counts
    covered = sum(
        count
        for (low, high), count in zip(intervals, times.tolist(), strict=True)
        if low <= float(np.mean(truth)) <= high
    )
    assert covered >= 0.94 * draws


def test_a_task_of_few_episodes_widens_the_interval_of_the_mean() -> None:
    assert macro_interval([0.5, 0.5], [10, 1000]) == pytest.approx(wilson(2 / 0.101, 4 / 0.101))


def test_figures_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match="start for each value"):
        design_effect([1.0], [])
    with pytest.raises(InputError, match="interval for each estimate"):
        mean_interval([0.5], [])
    for numbers in ([], [0.0]):
        with pytest.raises(InputError, match="episodes for each rate"):
            macro_interval([0.5], numbers)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1, 100))
def test_a_percentile_is_a_sample_that_enough_samples_do_not_exceed(samples: list[float], percent: float) -> None:
    value = percentile(samples, percent)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= percent / 100 * len(samples) - 1e-6


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        percentile([], 50)
