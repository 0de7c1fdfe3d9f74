"""Recipes fill slots with techniques found by looking; what is unknown or does not fit is refused by name."""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.vla.family_members import GUIDED, member
from vla import recipe as recipes
from vla.accelerate import techniques
from vla.accelerate.execution.lean import Lean
from vla.accelerate.stages import Weights
from vla.accelerate.techniques import SLOTS, Technique, methods
from vla.api import InputError
from vla.models.family import ActionModel


def test_every_slot_s_default_is_a_technique() -> None:
    for name, slot in SLOTS.items():
        assert slot.default is None or slot.default in methods(name)


@pytest.mark.parametrize("slot", sorted(SLOTS))
def test_every_technique_is_a_dataclass_of_its_slot_under_its_file_s_name(slot: str) -> None:
    for method in methods(slot):
        (technique,) = techniques.plugs_of("test", {slot: method})[slot]
        assert isinstance(technique, Technique)
        assert (technique.slot, technique.method) == (slot, method)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_fills_every_slot(name: str) -> None:
    assert set(recipes.find(name).plugs) == set(SLOTS)


def test_none_fills_nothing() -> None:
    assert recipes.find("none").plugs == techniques.plugs_of("none", {})


def test_options_reach_the_technique() -> None:
    (execution,) = recipes.find({**GUIDED, "execution": {"method": "lean", "compile": True}}).plugs["execution"]
    assert execution == Lean(compile=True)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"speed": "fast"}, "may fill the slots weights, tokens, temporal, decoding, action_cache, execution.*'speed'"),
        ({"execution": "warp"}, "unknown execution method 'warp'; allowed: eager, lean, published"),
        ({"decoding": {"method": "telepathy"}}, "unknown decoding method 'telepathy'; allowed: .*autoregressive"),
        ({"execution": {"method": "lean", "speed": 3}}, r"execution=lean has no options \['speed'\]; allowed: compile"),
        ({"execution": {"method": "eager", "speed": 3}}, "allowed: none"),
        ({"execution": {"method": "lean", "compile": "yes"}}, "compile must be true or false, got 'yes'"),
        ({"execution": ["lean", "eager"]}, "execution takes one method, got a list of 2"),
        ({"execution": {}}, "unknown execution method None"),
        ({"execution": {"method": ["lean"]}}, "unknown execution method"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_there(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        recipes.find({**GUIDED, **values})


@dataclass(frozen=True)
class Choosy(Weights):
    """Fits no model."""

    def unfit(self, model: ActionModel) -> str | None:
        return f"it has {sum(1 for _ in model.parameters())} tensors too many"


def test_a_technique_that_does_not_apply_is_refused_with_its_reason() -> None:
    policy = member("cogact_vit")
    plugs = {**policy.recipe.plugs, "weights": (Choosy(),)}
    with pytest.raises(InputError, match=r"weights=test_recipes does not apply to this model: it has \d+ tensors"):
        techniques.check_fit("test", plugs, policy.model)


def test_weights_are_not_shared_with_a_recipe_that_changes_them() -> None:
    policy = member("cogact_vit")
    changing = replace(policy.recipe, name="thin", plugs={**policy.recipe.plugs, "weights": (Choosy(),)})
    with pytest.raises(InputError, match="none and thin have other weights"):
        policy.with_recipe(changing)


def test_a_slot_that_an_execution_has_no_place_for_is_refused() -> None:
    plugs = {**recipes.find("reference").plugs, "tokens": (Technique(),)}
    with pytest.raises(InputError, match=r"execution=published has no place for tokens, only for weights; another"):
        techniques.check_fit("test", plugs, member("cogact_vit").model)
