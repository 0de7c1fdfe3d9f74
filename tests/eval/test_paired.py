"""Two policies on the same starts: tests, intervals and corrections."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial
from statsmodels.stats.contingency_tables import mcnemar

from eval.paired import (
    Pairs,
    difference_interval,
    holm,
    mcnemar_exact,
    non_inferiority,
    shares_by_start,
    suite_interval,
)
from vla.api import InputError

tables = st.tuples(*[st.integers(0, 20)] * 4).filter(any)


def table(both: int, lost: int, gained: int, neither: int) -> Pairs:
    """Pairs with these counts, every start run once."""
    baseline = np.repeat([True, True, False, False], [both, lost, gained, neither])
    run = np.repeat([True, False, True, False], [both, lost, gained, neither])
    return Pairs(baseline, run, np.arange(len(run)))


def test_counts_and_difference() -> None:
    pairs = table(10, 3, 7, 4)
    assert (pairs.n, pairs.gained, pairs.lost) == (24, 7, 3)
    assert (
        pairs.difference
        == pytest.approx(4 / 24)
        == shares_by_start(pairs.run * 1.0 - pairs.baseline, pairs.starts).mean()
    )


@given(tables)
def test_the_exact_test_is_mcnemar_s(counts) -> None:
    both, lost, gained, neither = counts
    expected = mcnemar([[both, lost], [gained, neither]], exact=True)
    assert mcnemar_exact(table(*counts).signs) == pytest.approx(expected.pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_exact_test_gives_the_binomial_s_values() -> None:
    assert mcnemar_exact(table(0, 0, 8, 0).signs) == pytest.approx(2 / 2**8)
    assert mcnemar_exact(table(9, 0, 0, 9).signs) == 1.0


def test_variants_of_a_start_are_one_observation() -> None:
    repeated = Pairs(np.zeros(30, bool), np.repeat([True, False], [9, 21]), np.repeat(np.arange(10), 3))
    assert repeated.gained == 9
    assert repeated.signs.tolist() == [1] * 3 + [0] * 7
    assert mcnemar_exact(repeated.signs) == mcnemar_exact(table(0, 0, 3, 7).signs)
    assert difference_interval(repeated) == pytest.approx(difference_interval(table(0, 0, 3, 7)))


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [  # airway reactivity: Fagerland, Lydersen and Laake (2014); no discordant pair: z^2 / (n + z^2)
        ((1, 7, 1, 12), -0.517, -0.026),
        ((12, 0, 0, 12), -0.138, 0.138),
        ((0, 24, 0, 0), -1.0, -0.724),
    ],
)
def test_the_interval_is_tango_s(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert difference_interval(table(*counts)) == pytest.approx((low, high), abs=5e-4)


@given(tables)
def test_the_interval_holds_the_difference_and_mirrors(counts) -> None:
    both, lost, gained, neither = counts
    pairs = table(*counts)
    low, high = difference_interval(pairs)
    assert -1 <= low <= pairs.difference <= high <= 1
    assert difference_interval(table(both, gained, lost, neither)) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("shares", [(0.05, 0.05), (0.2, 0.1), (0.02, 0.4)])
def test_the_interval_covers_the_truth_as_often_as_it_says(shares: tuple[float, float]) -> None:
    n, covered = 24, 0.0
    for lost, gained in np.argwhere(np.add.outer(np.arange(n + 1), np.arange(n + 1)) <= n):
        probability = multinomial.pmf([lost, gained, n - lost - gained], n, [*shares, 1 - sum(shares)])
        if probability > 1e-6:
            low, high = difference_interval(table(0, lost, gained, n - lost - gained))
            covered += probability * (low <= shares[1] - shares[0] <= high)
    assert covered >= 0.945


@given(tables, st.floats(0.01, 0.5))
def test_non_inferiority_agrees_with_the_interval(counts, margin: float) -> None:
    pairs = table(*counts)
    low = difference_interval(pairs).low
    if abs(low + margin) > 1e-6:
        assert non_inferiority(pairs, margin).non_inferior == (low > -margin)


def test_policies_that_never_differ_are_not_non_inferior_without_enough_starts() -> None:
    assert not non_inferiority(table(12, 0, 0, 12), 0.05).non_inferior
    assert non_inferiority(table(50, 0, 0, 50), 0.05).non_inferior


def test_non_inferiority_is_found_wrongly_no_more_often_than_it_says() -> None:
    random, found = np.random.default_rng(0), 0
    for _ in range(1000):  # worse by just the margin
        lost, gained, same = random.multinomial(200, [0.15, 0.05, 0.8])
        found += non_inferiority(table(same, lost, gained, 0), 0.1).non_inferior
    assert found <= 0.035 * 1000


def test_holm_gives_the_values_of_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_the_suite_weighs_tasks_and_not_episodes() -> None:
    small, large = np.repeat([1.0, 0.0], [5, 5]), np.zeros(200)
    low, high = suite_interval([small, large])
    assert low < 0.25 < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 10) / 2, rel=0.15)


def test_the_bootstrap_keeps_pairs_together_and_repeats() -> None:
    pairs = table(40, 0, 5, 55)
    change = shares_by_start(pairs.run * 1.0 - pairs.baseline, pairs.starts)
    assert suite_interval([change]).low > 0  # unpaired, at rates of 40 and 45 %, it would be far below
    noise = [np.random.default_rng(0).random(20)]
    assert suite_interval(noise, seed=1) == suite_interval(noise, seed=1) != suite_interval(noise, seed=2)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    random, covered, shares = np.random.default_rng(0), 0, (0.2, 0.5, 0.8)
    for _ in range(200):
        low, high = suite_interval([(random.random(60) < share).astype(np.float64) for share in shares], resamples=500)
        covered += low <= np.mean(shares) <= high
    assert covered >= 0.9 * 200


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Pairs(np.ones(2, bool), np.ones(3, bool), np.arange(3)),
        lambda: Pairs(np.ones(0, bool), np.ones(0, bool), np.arange(0)),
        lambda: difference_interval(table(1, 1, 1, 1), confidence=1.0),
        lambda: non_inferiority(table(1, 1, 1, 1), margin=0.0),
        lambda: suite_interval([]),
        lambda: suite_interval([np.ones(1)]),
    ],
)
def test_impossible_input_is_refused(wrong) -> None:
    with pytest.raises(InputError):
        wrong()
