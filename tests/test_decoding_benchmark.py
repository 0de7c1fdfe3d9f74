"""The benchmark of decoders: what it projects follows from passes and their costs alone."""

import pytest

from benchmarks.decoding import BASELINE, Taken, projected, summary


def taken(sizes: list[int], head_ms: float) -> Taken:
    found = {"passes": 1.0 + len(sizes), "words_per_pass": 1.0, "acceptance_length": 1.0}
    return Taken([head_ms], [head_ms + 10], [found], [sizes], [True])


def test_a_projection_adds_up_the_costs_of_all_passes() -> None:
    runs = {BASELINE: taken([1] * 55, 55.0), "half": taken([28, 28], 20.0)}
    speedups = projected(runs, {1: [2.0, 2.0, 9.0], 56: [4.0]})
    assert speedups[BASELINE] == 1
    assert speedups["half"] == pytest.approx(55 * 2 / (2 * (2 + 2 * 27 / 55)))


def test_ratios_are_the_baseline_s_time_over_each() -> None:
    found = summary({BASELINE: taken([1], 40.0), "fast": taken([1], 10.0)})
    assert found["fast"]["head_ratio"]["p50"] == 4
    assert found["fast"]["total_ratio"]["p50"] == 2.5
    assert found["fast"]["same_actions"] == 1
