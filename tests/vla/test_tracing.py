"""Traces: which kinds of inputs they are made for, and that they are what they were made from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.vla.family_members import GUIDED, answered, member, robots
from vla import recipe as recipes
from vla.accelerate.lean import tracing
from vla.accelerate.lean.tracing import Traced
from vla.api import InputError
from vla.policy import load_policy

LEAN = {**GUIDED, "execution": "lean"}
TRACED = {**GUIDED, "execution": {"method": "lean", "trace": True}}


def made(function: Traced) -> int:
    return len(function._traces)


def test_a_trace_is_made_once_for_each_kind_of_arguments() -> None:
    double = Traced(lambda pair, factor: {"twice": (pair[0] * 2 + pair[1], None, factor)})
    for number in (1.0, 2.0):
        ((got, nothing, factor),) = double((torch.full((1, 2), number), torch.ones(1, 2)), 3).values()
        assert (got.tolist(), nothing, factor) == ([[2 * number + 1] * 2], None, 3)
    assert made(double) == 1
    double((torch.ones(1, 3), torch.ones(1, 3)), 3)
    double((torch.ones(1, 2), torch.ones(1, 2)), 4)
    double((torch.ones(1, 2, dtype=torch.float64), torch.ones(1, 2)), 3)
    assert made(double) == 4


def test_what_else_decides_is_told_apart() -> None:
    """As padding is: a number that the function looks at itself would stay what it was when the trace was made."""

    def looking(numbers: Tensor) -> Tensor:
        return numbers + 1 if bool(numbers.any()) else numbers - 1

    looked = Traced(looking, lambda numbers: bool(numbers.any()))
    for number in (1.0, 0.0, 2.0, 0.0):
        assert looked(torch.full((1, 1), number)).item() == (number + 1 if number else -1)


def test_several_observations_are_not_traced() -> None:
    double = Traced(lambda numbers: 2 * numbers)
    assert double(torch.ones(3, 1)).tolist() == [[2]] * 3
    assert made(double) == 0


def test_the_traces_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "KEPT", 2)
    double = Traced(lambda numbers: 2 * numbers)
    for width in (1, 2, 1, 3):
        double(torch.ones(1, width))
    assert [kinds[0][0] for _, kinds, _ in double._traces] == [(1, 1), (1, 3)]  # type: ignore[misc]


@pytest.mark.parametrize("name", ["cogact_vit", "cogact_dinosiglip", "openvla", "pi0"])
def test_padding_changes_what_is_run(name: str) -> None:
    """Prompts of one length with and without padding, in both orders."""
    plain = member(name, LEAN)
    (seen,) = robots(plain, 1)
    images, prompt, state = plain.tensors([seen])
    shorter = prompt.clone()
    shorter[:, -1] = plain.model.config.pad_id
    for order in ((prompt, shorter), (shorter, prompt)):
        policy = plain.with_recipe(recipes.find(TRACED))
        with torch.inference_mode():
            for words in (*order, *order):
                got, expected = (_prefilled(each.stages, images, words, state) for each in (policy, plain))
                assert all(map(torch.equal, got, expected))


def _prefilled(stages: Any, images: Tensor, prompt: Tensor, state: Tensor | None) -> list[Tensor]:
    prefilled = stages.prefill(stages.encode(images), prompt, state)
    return [leaf for leaf in pytree.tree_leaves(prefilled) if isinstance(leaf, Tensor)]


def test_a_trace_that_gives_something_else_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    draws = iter(range(100))
    counting = Traced(lambda numbers: numbers * next(draws))
    assert [counting(torch.ones(1)).item() for _ in range(3)] == [2, 3, 4]
    assert len(caplog.records) == 1
    assert "gives something else, so it is not used" in caplog.text


def test_sessions_are_answered_together_as_one_by_one() -> None:
    plain = member("cogact_vit", LEAN)
    traced, seen = plain.with_recipe(recipes.find(TRACED)), robots(plain, 3)
    for _ in range(2):
        assert torch.equal(answered(traced, seen), answered(plain, seen))
        assert torch.equal(answered(traced, seen[:1]), answered(plain, seen[:1]))


def test_the_shipped_policy_is_the_same_traced() -> None:
    fast = recipes.find("fast")
    (lean,) = fast.plugs["execution"]
    assert getattr(lean, "trace", False)
    policy = load_policy(recipe=fast)
    (seen,) = robots(policy, 1)
    for step in range(4):
        now = replace(seen, step=step)
        got = policy.infer(now).actions
        with policy.plainly():
            assert (policy.infer(now).actions == got).all()


def test_a_compiler_and_a_trace_exclude_each_other() -> None:
    with pytest.raises(InputError, match="compile and trace exclude each other"):
        recipes.find({**GUIDED, "execution": {"method": "lean", "trace": True, "compile": True}})
