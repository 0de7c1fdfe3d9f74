"""The shipped policy that says actions in words: exact decoders say on what it sees what greedy decoding says."""

from functools import cache
from typing import Any

import numpy as np
import pytest

import envs
from eval.rollout import observe
from vla.api import ActionChunk, Observation
from vla.decoding.decoder import WORDS_PER_PASS
from vla.policy import load_policy
from vla.recipe import find

ROBOTS = {"widowx": "widowx_spoon_on_towel", "google_robot": "google_robot_open_drawer"}
BASE: dict[str, Any] = {"denoising_steps": 10, "guidance_scale": 1.0, "execution": "lean"}
PRUNED: dict[str, dict[str, Any]] = {
    "all tokens and layers": {},
    "half of the tokens": {"tokens": {"method": "fastv", "budget": 0.5, "layer": 0.25}},
    "seven layers": {"weights": {"method": "prune_layers", "layers": [5]}},
}
EXACT: list[dict[str, Any]] = [
    {"method": "jacobi"},
    {"method": "jacobi", "block": 14, "warm": False},
    {"method": "self_speculative"},
    {"method": "self_speculative", "block": 9},
    {"method": "self_speculative", "redraft": False},
]
STEPS = 4


@cache
def seen(task: str) -> list[Observation]:
    """The first frames of an episode whose actions are small and random."""
    world, random = envs.make(task), np.random.default_rng(0)
    raw, info = world.reset(seed=100)
    frames = []
    for step in range(STEPS):
        frames.append(observe(raw, info["instruction"], "robot", step))
        raw, _, _, _, info = world.step(random.normal(0, 0.01, 7).astype(np.float32))
    world.close()
    return frames


def answers(robot: str, slots: dict[str, Any], decoding: Any) -> list[ActionChunk]:
    policy = load_policy("tiny_tokens", robot=robot, recipe=find({**BASE, **slots, "decoding": decoding}))
    return [policy.infer(frame) for frame in seen(ROBOTS[robot])]


@pytest.mark.parametrize("robot", sorted(ROBOTS))
@pytest.mark.parametrize("slots", PRUNED.values(), ids=PRUNED)
def test_exact_decoders_say_the_words_of_greedy_decoding(robot: str, slots: dict[str, Any]) -> None:
    greedy = answers(robot, slots, "autoregressive")
    assert greedy[0].actions.shape == (8, 7)
    for how in EXACT:
        for answer, wanted in zip(answers(robot, slots, how), greedy, strict=True):
            np.testing.assert_array_equal(answer.actions, wanted.actions, err_msg=str(how))


@pytest.mark.parametrize("robot", sorted(ROBOTS))
@pytest.mark.parametrize("how", [*EXACT, {"method": "block_diffusion", "rule": "factor"}], ids=str)
def test_a_pass_gives_more_than_a_word(robot: str, how: dict[str, Any]) -> None:
    words = [answer.statistics[WORDS_PER_PASS] for answer in answers(robot, {}, how)]
    assert np.mean(words) > 1
