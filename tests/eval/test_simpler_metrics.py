"""SIMPLER's metrics against the values of its own data."""

import inspect
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from eval.simpler_metrics import mean_maximum_rank_violation, pearson_correlation
from vla.api import InputError

# SIMPLER's published rates (visual matching). Google robot: rt-2-x, rt-1-converged, rt-1-15pct, rt-1-x, rt-1-begin,
# octo-base; WidowX: rt-1-x, octo-base, octo-small. The values are what its own functions give for them.
PUBLISHED = {
    "pick coke can": (
        (0.907, 0.853, 0.920, 0.760, 0.133, 0.293),
        (0.787, 0.857, 0.710, 0.567, 0.027, 0.170),
        0.0313,
        0.9754,
    ),
    "move near": (
        (0.733, 0.633, 0.583, 0.450, 0.017, 0.350),
        (0.779, 0.442, 0.354, 0.317, 0.050, 0.042),
        0.1110,
        0.8561,
    ),
    "open drawer": (
        (0.333, 0.815, 0.704, 0.519, 0.000, 0.148),
        (0.157, 0.601, 0.463, 0.296, 0.000, 0.009),
        0.0000,
        0.9832,
    ),
    "close drawer": (
        (0.630, 0.926, 0.889, 0.741, 0.000, 0.519),
        (0.343, 0.861, 0.667, 0.891, 0.278, 0.444),
        0.1233,
        0.7712,
    ),
    "apple in drawer": (
        (0.074, 0.185, 0.185, 0.407, 0.000, 0.000),
        (0.037, 0.065, 0.130, 0.213, 0.000, 0.000),
        0.0000,
        0.9692,
    ),
    "spoon on towel": ((0.000, 0.333, 0.417), (0.000, 0.125, 0.472), 0.0000, 0.8269),
    "carrot on plate": ((0.000, 0.250, 0.083), (0.042, 0.083, 0.097), 0.1113, 0.5714),
    "stack cube": ((0.000, 0.000, 0.125), (0.000, 0.000, 0.042), 0.0000, 1.0000),
    "eggplant in basket": ((0.000, 0.250, 0.400), (0.000, 0.431, 0.569), 0.0000, 0.9894),
}
PUBLISHED["drawer, mean of open and close"] = (
    tuple(sum(pair) / 2 for pair in zip(PUBLISHED["open drawer"][0], PUBLISHED["close drawer"][0], strict=True)),
    tuple(sum(pair) / 2 for pair in zip(PUBLISHED["open drawer"][1], PUBLISHED["close drawer"][1], strict=True)),
    0.0555,
    0.9159,
)

rates = st.lists(st.tuples(*[st.integers(0, 24).map(lambda k: k / 24)] * 2), min_size=2, max_size=8)


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_published_table_is_reproduced(task: str) -> None:
    real, sim, violation, correlation = PUBLISHED[task]
    assert mean_maximum_rank_violation(sim=sim, real=real) == pytest.approx(violation, abs=0.001)
    assert pearson_correlation(sim=sim, real=real) == pytest.approx(correlation, abs=0.005)


def test_swapped_arguments_would_give_another_value_and_cannot_be_given_silently() -> None:
    real, sim, _, _ = PUBLISHED["pick coke can"]
    assert mean_maximum_rank_violation(sim=real, real=sim) == pytest.approx(0.0618, abs=0.001)
    for metric in (mean_maximum_rank_violation, pearson_correlation):
        kinds = [parameter.kind for parameter in inspect.signature(metric).parameters.values()]
        assert kinds == [inspect.Parameter.KEYWORD_ONLY] * 2
        with pytest.raises(TypeError):
            metric(sim, real)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("sim", "violation"),
    [((0.5, 0.5, 0.2), 0.16667), ((0.3, 0.3, 0.3), 0.36667)],
)
def test_a_tie_in_one_list_charges_the_better_policy(sim: tuple[float, ...], violation: float) -> None:
    assert mean_maximum_rank_violation(sim=sim, real=(0.9, 0.4, 0.1)) == pytest.approx(violation, abs=1e-5)


@given(rates)
def test_the_metrics_do_not_depend_on_the_order_of_policies(pairs) -> None:
    values = set()
    for order in list(permutations(pairs))[:6]:
        sim, real = zip(*order, strict=True)
        values.add(round(mean_maximum_rank_violation(sim=sim, real=real), 9))
    assert len(values) == 1


@given(st.lists(st.integers(0, 100).map(lambda k: k / 100), min_size=2, max_size=8, unique=True))
def test_the_same_order_violates_nothing(real: list[float]) -> None:
    assert mean_maximum_rank_violation(sim=[rate**2 for rate in real], real=real) == 0
    assert pearson_correlation(sim=[rate / 2 for rate in real], real=real) == pytest.approx(1)


def test_the_correlation_is_pearson_s() -> None:
    real, sim, _, _ = PUBLISHED["move near"]
    assert pearson_correlation(sim=sim, real=real) == pytest.approx(pearsonr(sim, real)[0])


@pytest.mark.parametrize(
    ("sim", "real"),
    [([], []), ([0.5], [0.5]), ([0.1, 0.2], [0.1]), ([0.1, 2.0], [0.1, 0.2]), ([0.1, 0.2], [0.1, float("nan")])],
)
@pytest.mark.parametrize("metric", [mean_maximum_rank_violation, pearson_correlation])
def test_rates_that_cannot_be_ranked_are_refused(metric, sim: list[float], real: list[float]) -> None:
    with pytest.raises(InputError):
        metric(sim=sim, real=real)


def test_a_correlation_with_equal_rates_does_not_exist() -> None:
    with pytest.raises(InputError, match=r"sim=0\.3"):
        pearson_correlation(sim=[0.3, 0.3], real=[0.1, 0.2])
