"""Laws of the recipes `reference` and `exact`, over a small member of every family and the shipped models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eval.profiler.latency import random_observation
from tests.vla.family_members import GUIDED, MEMBERS, answered, member, relative, robots
from tests.vla.small import TOKENIZER, save_small
from vla import recipe as recipes
from vla.checkpoints import native
from vla.models import family
from vla.policy import VlaPolicy, load_policy, model_names

ROUNDING = 1e-5
LEAN = {**GUIDED, "execution": "lean"}


@pytest.fixture(scope="module", params=sorted(MEMBERS))
def policy(request: pytest.FixtureRequest) -> VlaPolicy:
    return member(request.param)


def under(policy: VlaPolicy, recipe: str | dict[str, Any]) -> VlaPolicy:
    return policy.with_recipe(recipes.find(recipe))


def answers(policy: VlaPolicy, count: int = 2) -> Tensor:
    return torch.cat([answered(policy, [seen]) for seen in robots(policy, count)])


def test_every_family_has_a_member_here() -> None:
    assert {model_type for model_type, _ in MEMBERS.values()} == set(family.model_types())


def test_exact_is_the_reference_up_to_rounding(policy: VlaPolicy) -> None:
    expected = answers(under(policy, "reference"))
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # sessions do differ
    assert relative(answers(under(policy, "exact")), expected) < ROUNDING


@pytest.mark.parametrize("name", model_names())
def test_exact_is_the_reference_up_to_rounding_on_shipped_models(name: str) -> None:
    shipped = load_policy(name, recipe="reference")
    assert relative(answers(under(shipped, "exact"), 1), answers(shipped, 1)) < ROUNDING


@pytest.mark.parametrize("recipe", ["reference", LEAN])
def test_a_batch_is_its_parts(policy: VlaPolicy, recipe: Any) -> None:
    """Prompts of different lengths: the shorter ones are padded."""
    other = under(policy, recipe)
    assert relative(answered(other, robots(other, 2)), answers(other)) < ROUNDING


def test_an_execution_changes_neither_names_nor_values_of_weights(policy: VlaPolicy) -> None:
    before = {name: tensor.clone() for name, tensor in policy.model.state_dict().items()}
    under(policy, LEAN)
    after = policy.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_shared_model_still_gives_the_baseline_s_actions_bit_for_bit(policy: VlaPolicy) -> None:
    before = answers(policy)
    under(policy, LEAN)
    assert torch.equal(answers(policy), before)


def test_fused_weights_are_kept_once(policy: VlaPolicy) -> None:
    under(policy, LEAN)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in policy.model.parameters()}
    assert sum(storages.values()) == sum(p.nbytes for p in policy.model.parameters())


def test_plainly_is_the_same(policy: VlaPolicy) -> None:
    lean = under(policy, LEAN)
    expected = answers(lean, 1)
    with lean.plainly():
        assert torch.equal(answers(lean, 1), expected)


def test_reset_changes_nothing_where_nothing_is_remembered(policy: VlaPolicy) -> None:
    lean = under(policy, LEAN)
    first = answers(lean, 2)
    lean.reset("robot-0")
    assert torch.equal(answers(lean, 2), first)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_bfloat16_stays_near_its_reference(name: str) -> None:
    """Rounding is 2**-8 there; words of an action may flip to a neighbouring bin or, when logits tie, to any other."""
    rounded = member(name, "reference", torch.bfloat16)
    lean = under(rounded, LEAN)
    if rounded.model.HEAD == "tokens":
        assert (answers(lean) == answers(rounded)).float().mean() > 0.5
    else:
        assert relative(answers(lean), answers(rounded)) < 0.15


@pytest.mark.parametrize("name", ["cogact_vit", "cogact_dinosiglip"])
@pytest.mark.parametrize(("steps", "scale"), [(10, 1.0), (5, 4.0), (1, 1.5)])
def test_exact_follows_steps_and_guidance(name: str, steps: int, scale: float) -> None:
    values = {"denoising_steps": steps, "guidance_scale": scale}
    plain = member(name, values)
    assert relative(answers(under(plain, {**values, "execution": "lean"})), answers(plain)) < ROUNDING


@pytest.mark.parametrize("name", ["cogact_vit", "pi0"])
def test_continuing_known_actions_is_the_same(name: str) -> None:
    plain = member(name)
    first, second = robots(plain, 2)
    committed = plain.infer(second).actions[1:3]
    seen = [first, replace(second, committed=committed, frozen=1)]
    expected = [chunk.actions for chunk in plain.infer_batch(seen)]
    assert np.abs(expected[1] - plain.infer(second).actions).max() > 1e-3  # it does continue them
    for chunk, same in zip(under(plain, LEAN).infer_batch(seen), expected, strict=True):
        np.testing.assert_allclose(chunk.actions, same, atol=ROUNDING)


def test_a_model_saved_after_it_was_fused_acts_the_same(tmp_path: Path) -> None:
    lean = load_policy(checkpoint=save_small(tmp_path / "first"), recipe="exact")
    native.save(tmp_path / "second", lean.model, lean.processing, TOKENIZER, {})
    again = load_policy(checkpoint=tmp_path / "second", recipe="exact")
    assert again.spec.checkpoint == lean.spec.checkpoint
    seen = random_observation(lean.spec, "put the spoon on the towel")
    np.testing.assert_array_equal(again.infer(seen).actions, lean.infer(seen).actions)
