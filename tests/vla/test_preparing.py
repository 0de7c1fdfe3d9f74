"""Nothing is recorded or compiled while a robot waits: the first answer of each batch size makes all ready."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.vla.family_members import GUIDED, answered, member, relative, robots
from tests.vla.test_lean import always_masked as always_masked
from tests.vla.test_lean import recorded
from vla.accelerate.execution import lean
from vla.accelerate.execution.lean import Functions
from vla.accelerate.lean.encoder import encoder_blocks
from vla.accelerate.lean.graphs import captured
from vla.accelerate.lean.layer import decoder_layer
from vla.policy import VlaPolicy
from vla.preparing import lengths, padded

MEMBERS = ("cogact_vit", "openvla", "pi0")
LEAN = {**GUIDED, "execution": "lean"}
INSTRUCTIONS = ("open", "put the spoon on the towel", "pick up the coke can", "lift the sponge in the sink now")


def asked_again(policy: VlaPolicy) -> None:
    """Instructions of all lengths, alone and two at a time."""
    first, second = robots(policy, 2)
    for text in INSTRUCTIONS:
        policy.infer(replace(first, instruction=text))
        policy.infer_batch([first, replace(second, instruction=text)])


@pytest.mark.usefixtures("always_masked")
@pytest.mark.parametrize("name", MEMBERS)
def test_every_length_is_recorded_with_the_first_answer_of_its_size(name: str) -> None:
    made: list[int] = []

    def record(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        made.append(len(made))
        return recorded(function)

    plain, policy = (member(name, LEAN, max_prompt=32) for _ in range(2))
    policy.stages = captured(policy.stages, record)
    policy.infer(robots(policy, 1)[0])
    policy.infer_batch(robots(policy, 2))
    ready = len(made)
    asked_again(policy)
    assert len(made) == ready
    for seen in (robots(policy, 1), robots(policy, 2)):
        assert relative(answered(policy, seen), answered(plain, seen)) < 1e-5


@pytest.mark.parametrize("name", MEMBERS)
def test_every_shape_is_compiled_with_the_first_answer_of_its_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: set[Any] = set()

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            shapes.add(
                tuple(leaf.shape if isinstance(leaf, Tensor) else leaf for leaf in pytree.tree_leaves(arguments))
            )
            return function(*arguments)

        return run

    monkeypatch.setattr(lean, "_compiled", lambda: Functions(compiled(encoder_blocks), compiled(decoder_layer)))
    policy = member(name, {**GUIDED, "execution": {"method": "lean", "compile": True}}, max_prompt=32)
    policy.infer(robots(policy, 1)[0])
    policy.infer_batch(robots(policy, 2))
    ready = len(shapes)
    assert ready
    asked_again(policy)
    assert len(shapes) == ready


def test_plain_stages_read_prompts_as_they_are() -> None:
    policy = member("cogact_vit", LEAN)
    seen = robots(policy, 1)[0]
    before = policy.tensors([seen])[1]
    policy.stages = captured(policy.stages, recorded)
    after = policy.tensors([seen])[1]
    assert after.shape[1] in lengths(1, policy.model.config.max_prompt)
    assert torch.equal(after[:, : before.shape[1]], before)
    with policy.plainly():
        assert torch.equal(policy.tensors([seen])[1], before)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("longest", [1, 24, 64, 256])
def test_there_is_a_length_for_every_prompt(batch: int, longest: int) -> None:
    assert lengths(batch, longest)[-1] == longest
    for words in range(1, longest + 1):
        made = padded(torch.ones(batch, words, dtype=torch.long), longest, 0)
        assert made.shape[1] in lengths(batch, longest)
        assert int(made.sum()) == batch * words
