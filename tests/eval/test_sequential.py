"""The comparison that may be stopped early."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.sequential import e_process, sequential_test
from vla.api import InputError

COMPARISONS, STARTS, ALPHA = 2000, 400, 0.05


def outcomes(shares: tuple[float, float], seed: int) -> np.ndarray:
    """(comparisons, starts) signs of policies that alone solve these shares of starts."""
    drawn = np.random.default_rng(seed).random((COMPARISONS, STARTS))
    return np.where(drawn < shares[1], 1, np.where(drawn < sum(shares), -1, 0))


@pytest.mark.parametrize("discordant", [0.1, 0.3, 1.0])
def test_looking_after_every_start_finds_few_differences_between_equal_policies(discordant: float) -> None:
    evidence = e_process(outcomes((discordant / 2, discordant / 2), seed=0))
    stopped = (evidence >= 1 / ALPHA).any(axis=1)
    assert stopped.mean() <= ALPHA


def test_equal_policies_on_tasks_of_unequal_difficulty_are_seldom_told_apart() -> None:
    random = np.random.default_rng(1)
    rates = random.choice([0.05, 0.5, 0.9], size=STARTS)  # the starts of three tasks, interleaved
    solved = random.random((2, COMPARISONS, STARTS)) < rates
    evidence = e_process(solved[1].astype(int) - solved[0])
    assert (evidence >= 1 / ALPHA).any(axis=1).mean() <= ALPHA


def test_a_fixed_test_repeated_until_it_says_yes_would_err() -> None:
    signs = outcomes((0.15, 0.15), seed=2)
    wins, count = np.cumsum(signs, axis=1), np.cumsum(signs != 0, axis=1)
    assert (np.abs(wins) > 1.96 * np.sqrt(np.maximum(count, 10))).any(axis=1).mean() > 3 * ALPHA


def test_a_better_policy_is_found_before_all_starts_were_run() -> None:
    evidence = e_process(outcomes((0.05, 0.25), seed=3))  # 20 points better
    decided = evidence >= 1 / ALPHA
    assert decided.any(axis=1).mean() > 0.99
    assert np.median(decided.argmax(axis=1) + 1) < 100


def test_evidence_is_the_product_of_fair_bets() -> None:
    signs, wealth, wins, losses = [1, 0, 1, -1, 1, 1], 1.0, 0, 0
    for number, sign in enumerate(signs):
        wealth *= 1 + sign * (wins - losses) / (wins + losses + 2)
        wins, losses = wins + (sign > 0), losses + (sign < 0)
        assert e_process(signs)[number] == pytest.approx(wealth)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=40))
def test_starts_that_both_or_neither_solve_are_no_evidence(signs: list[int]) -> None:
    discordant = [sign for sign in signs if sign]
    whole, few = sequential_test(signs), sequential_test(discordant)
    assert (whole.e_value, whole.p_value) == pytest.approx((few.e_value, few.p_value))
    assert whole.starts == len(signs)
    mirrored = sequential_test([-sign for sign in signs])
    assert mirrored.e_value == pytest.approx(whole.e_value)


def test_a_decision_stands_however_many_starts_follow() -> None:
    signs = [0, *[1] * 8, *[0] * 5]
    assert sequential_test(signs[:8]).stopped_at is None
    assert sequential_test(signs).stopped_at == 9
    later = sequential_test(signs + [-1] * 8)
    assert later.stopped_at == 9
    assert later.e_value < 1 < 1 / later.p_value == pytest.approx(sequential_test(signs).e_value)


def test_no_start_is_no_evidence() -> None:
    nothing = sequential_test([])
    assert (nothing.e_value, nothing.p_value, nothing.stopped_at) == (1.0, 1.0, None)


def test_evidence_stays_a_number() -> None:
    assert np.isfinite(sequential_test([1] * 5000).e_value)


@pytest.mark.parametrize(("signs", "alpha"), [([2], 0.05), ([1], 0.0), ([1], 1.0)])
def test_impossible_input_is_refused(signs: list[int], alpha: float) -> None:
    with pytest.raises(InputError):
        sequential_test(signs, alpha)
