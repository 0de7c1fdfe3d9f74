"""Several sessions answered together act as each would alone, up to rounding."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla.family_members import GUIDED, MEMBERS, answered, member, relative
from tests.vla.family_members import robots as family_robots
from tests.vla.small import INSTRUCTION, observation, save_small
from vla.api import BatchPolicy, InputError, Observation
from vla.policy import VlaPolicy, load_policy

INSTRUCTIONS = (INSTRUCTION, "open drawer", "put the green block on the yellow basket")  # of different lengths


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> VlaPolicy:
    return load_policy(checkpoint=save_small(tmp_path_factory.mktemp("batches") / "checkpoint"))


def robots() -> list[Observation]:
    return [
        observation(seed, session=f"robot-{seed}", step=seed, instruction=text)
        for seed, text in enumerate(INSTRUCTIONS)
    ]


def test_it_says_that_it_can(policy: VlaPolicy) -> None:
    assert isinstance(policy, BatchPolicy)


def test_a_batch_equals_its_parts_within_rounding(policy: VlaPolicy) -> None:
    alone = [policy.infer(seen).actions for seen in robots()]
    together = [chunk.actions for chunk in policy.infer_batch(robots())]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("name", sorted(MEMBERS))
@pytest.mark.parametrize(
    "recipe",
    [
        GUIDED,
        {
            **GUIDED,
            "execution": "lean",
            "tokens": {"method": "efficientvla", "layer": 1, "budget": 0.5, "key_tokens": 1},
        },
    ],
)
def test_a_robot_that_is_told_nothing_is_answered_the_same_alone_and_in_company(name: str, recipe: Any) -> None:
    policy = member(name, recipe)
    policy.processing = replace(policy.processing, prompt="{instruction}")  # no word is in it but the robot's
    first, second = family_robots(policy, 2)
    seen = [replace(first, instruction=""), second]
    alone = torch.cat([answered(policy, [each]) for each in seen])
    assert relative(answered(policy, seen), alone) < 1e-5


def test_a_batch_of_one_is_infer_bit_for_bit(policy: VlaPolicy) -> None:
    (chunk,) = policy.infer_batch([observation()])
    np.testing.assert_array_equal(chunk.actions, policy.infer(observation()).actions)


def test_nobody_s_actions_depend_on_who_else_is_asked_for(policy: VlaPolicy) -> None:
    first, *_ = policy.infer_batch(robots())
    *_, last = policy.infer_batch(robots()[::-1])
    np.testing.assert_allclose(first.actions, last.actions, atol=1e-6)


def test_one_that_does_not_fit_fails_the_batch(policy: VlaPolicy) -> None:
    with pytest.raises(InputError, match="at most 32"):
        policy.infer_batch([*robots(), observation(instruction="unintelligible " * 20)])


def test_a_batch_s_chunks_carry_the_batch_s_stages(policy: VlaPolicy) -> None:
    for chunk in policy.infer_batch(robots()):
        assert set(chunk.timing) == {"encode", "prefill", "head", "total"}


def test_some_of_a_batch_may_continue_committed_actions(policy: VlaPolicy) -> None:
    first, second, third = robots()
    committed = policy.infer(second).actions[1:3]
    mixed = [first, replace(second, committed=committed, frozen=1), third]
    alone = [policy.infer(seen).actions for seen in mixed]
    together = [chunk.actions for chunk in policy.infer_batch(mixed)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_array_equal(together[1][:1], committed[:1])
