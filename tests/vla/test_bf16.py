"""Products in bfloat16: what they round, and what they leave alone."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.vla.family_members import GUIDED, answered, member, relative, robots
from vla import recipe as recipes
from vla.accelerate.weights import bf16
from vla.policy import VlaPolicy

EMULATED = {"method": "bf16", "emulated": True}
FAMILIES = ("cogact_vit", "cogact_dinosiglip", "pi0")


def rounded(plain: VlaPolicy, weights: Any, execution: str = "lean") -> VlaPolicy:
    return plain.with_recipe(recipes.find({**GUIDED, "execution": execution, "weights": weights}))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_and_all_that_is_no_product_keep_their_numbers(name: str) -> None:
    plain = member(name, GUIDED)
    policy = rounded(plain, EMULATED)
    for module_name, module in policy.model.named_modules():
        kept = {"head", "lm_head", "state_projector"} & set(module_name.split("."))
        expected = torch.bfloat16 if isinstance(module, nn.Linear | nn.Conv2d) and not kept else torch.float32
        assert {each.dtype for each in module.parameters(recurse=False)} <= {expected}, module_name
    assert {each.dtype for each in plain.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", FAMILIES)
def test_actions_change_by_rounding_and_as_much_however_they_are_run(name: str) -> None:
    plain = member(name, GUIDED)
    seen = robots(plain, 2)
    lean, eager = (answered(rounded(plain, EMULATED, execution), seen) for execution in ("lean", "eager"))
    assert 1e-7 < relative(lean, answered(plain, seen)) < 0.02
    assert relative(lean, eager) < 0.02


def test_where_a_device_has_no_such_products_nothing_changes_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = member("cogact_vit", {**GUIDED, "execution": "lean"})
    seen = robots(plain, 2)
    monkeypatch.setattr(bf16, "multiplies_bfloat16", lambda device: False)
    assert torch.equal(answered(rounded(plain, "bf16"), seen), answered(plain, seen))
    assert caplog.messages == ["weights=bf16 changes nothing: this device has no instructions for bfloat16"]
    monkeypatch.setattr(bf16, "multiplies_bfloat16", lambda device: True)
    assert torch.equal(answered(rounded(plain, "bf16"), seen), answered(rounded(plain, EMULATED), seen))
