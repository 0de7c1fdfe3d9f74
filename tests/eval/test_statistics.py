"""Intervals and percentiles."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from eval.statistics import clopper_pearson, percentile, wilson
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


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(1, 100))
def test_a_percentile_is_a_sample_that_enough_samples_do_not_exceed(samples: list[float], percent: float) -> None:
    value = percentile(samples, percent)
    assert value in samples
    assert sum(sample <= value for sample in samples) >= percent / 100 * len(samples) - 1e-6


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        percentile([], 50)
