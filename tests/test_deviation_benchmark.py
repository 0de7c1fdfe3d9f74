"""The benchmark of deviations: in standard deviations of the baseline's own actions, frame by frame in turns."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.deviation import OTHER_NOISE, Answers, answered, compared
from tests.vla.family_members import member, robots
from vla import recipe as recipes


def made(actions: NDArray[np.float32], ratio: float = 1.0) -> Answers:
    return Answers(list(actions), [ratio] * len(actions))


def test_what_is_a_standard_deviation_off_is_one_off() -> None:
    own = np.random.default_rng(0).normal(size=(50, 2, 7)).astype(np.float32)
    own[..., 6] = np.sign(own[..., 6])
    here = own.copy()
    here[..., 0] += own[..., :3].std(axis=(0, 1)).mean()
    here[:10, :, 6] *= -1
    found = compared(made(here, 2.0), made(own))
    assert found["translation"] == pytest.approx({"mean": 1, "p95": 1}, rel=1e-5)
    assert found["rotation"] == {"mean": 0, "p95": 0}
    assert found["gripper"] == pytest.approx(0.2)
    assert found["ratio"] == 2


def test_a_recipe_that_changes_nothing_is_nothing_off_and_other_noise_is() -> None:
    baseline = member("cogact_vit")
    episode = robots(baseline)
    own, answers = answered(baseline, {"same": baseline.with_recipe(recipes.find("none"))}, [episode])
    assert np.array_equal(answers["same"].actions, own.actions)
    assert not np.isclose(answers[OTHER_NOISE].actions, own.actions).any()
    assert all(len(each.ratios) == len(episode) for each in answers.values())
