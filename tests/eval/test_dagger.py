"""DAgger: the learner acts, the expert labels and finishes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.collection import Request
from envs.demonstrations import Noise, demonstrate
from envs.lerobot_dataset import ACTION, STATE
from eval.dagger.learner import Learner, stretches
from vla.api import InputError

TASK = "widowx_spoon_on_towel"
LEARNER = Learner("tiny", None, "none", share=0.3, execute=2)
REQUEST = Request((TASK,), episodes=1, noise=Noise(clean_every=1), learner="tiny")


@pytest.fixture(scope="module")
def episode() -> Any:
    """A demonstration without noise, and what was executed in it."""
    env, expert = LEARNER.world(REQUEST, TASK, "base")
    executed, step = [], env.env.step
    env.env.step = lambda action: executed.append(action) or step(action)
    demonstration = demonstrate(env, expert, REQUEST.noise, TASK, 0, 0, 3, {})
    leads = env.leads
    env.close()
    return demonstration, np.array(executed), leads


def test_the_expert_labels_and_finishes_what_the_learner_led(episode: Any) -> None:
    demonstration, executed, leads = episode
    assert demonstration is not None, "the expert ends every kept episode in a strict success"
    labels = demonstration.vectors[ACTION]
    led = np.zeros(len(labels), bool)
    led[: len(leads)] = leads[: len(labels)]
    assert led.any()
    np.testing.assert_array_equal(executed[: len(labels)][~led], labels[~led])
    assert (np.abs(executed[: len(labels)][led] - labels[led]).max(axis=1) > 0).all()
    assert demonstration.vectors[STATE].shape[0] == len(labels)


def test_stretches_alternate_and_end_with_the_share() -> None:
    for seed in range(20):
        leads = stretches(60, 0.5, np.random.default_rng(seed))
        assert len(leads) == 30
        assert leads.any()
        np.testing.assert_array_equal(leads, stretches(60, 0.5, np.random.default_rng(seed)))


@pytest.mark.parametrize("share", [0, 1.5, -0.1, "half", None])
def test_a_share_outside_its_range_is_refused(share: Any) -> None:
    with pytest.raises(InputError, match="share must be a number above 0"):
        Learner("tiny", None, "none", share=share, execute=2)


def test_the_command_says_what_is_wrong_with_a_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eval.dagger", f"checkpoint={tmp_path}", f"out={tmp_path / 'out'}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 2
    assert "cannot read" in ended.stderr
