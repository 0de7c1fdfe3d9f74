"""Recipes fill slots with techniques found by looking; what is unknown or does not fit is refused by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vla.family_members import GUIDED, answered, member, robots
from vla import recipe as recipes
from vla.accelerate import techniques
from vla.accelerate.execution.lean import Lean
from vla.accelerate.stages import Weights
from vla.accelerate.techniques import SLOTS, Technique, methods
from vla.api import InputError
from vla.models.family import ActionModel
from vla.policy import load_policy


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


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\x00"])
def test_what_is_no_yaml_is_refused_with_its_place(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=r"recipe .*mine.yaml is not a YAML file: "):
        recipes.find(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"decoding": {"method": "block_diffusion", "rule": ["a"]}}, r"rule must be one of .*, got \['a'\]"),
        ({"weights": {"method": "prune_mlp", "measured": 3}}, "measured must list, for each layer, .* got 3"),
        ({"weights": {"method": "prune_mlp", "measured": [["x"]]}}, "measured must list"),
        ({"calibration": "there.json"}, "names the calibration there.json, but none of its techniques takes"),
    ],
)
def test_values_of_a_wrong_kind_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        recipes.find({**GUIDED, **values})


def test_a_calibration_is_beside_the_recipe_s_file(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    text = "denoising_steps: 10\nguidance_scale: 1.5\nweights: {method: prune_mlp, share: 0.25}\n"
    for named, expected in (("mine.json", tmp_path / "mine.json"), ("/there.json", Path("/there.json"))):
        own.write_text(f"{text}calibration: {named}\n")
        assert recipes.find(str(own)).calibration == str(expected)
    with pytest.raises(InputError, match=r"recipe own names the calibration /there.json, which random weights"):
        load_policy(recipe=str(own), init="random")
    with pytest.raises(InputError, match=r"there is no calibration /there.json; make one"):
        load_policy(recipe=recipes.find(str(own)))


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


def test_weights_that_a_recipe_changed_are_not_shared() -> None:
    policy = member("cogact_vit", {**GUIDED, "weights": {"method": "prune_layers", "layers": [0]}})
    with pytest.raises(InputError, match="changed the weights: load a policy for none"):
        policy.with_recipe(recipes.find("none"))


@pytest.mark.parametrize("name", ["cogact_vit", "openvla_blocks", "pi0"])
def test_a_recipe_that_changes_weights_shares_the_others_and_spares_the_first_policys(name: str) -> None:
    changes = [{"method": "prune_layers", "keep": 1}, {"method": "prune_mlp", "share": 0.5, "criterion": "magnitude"}]
    values = {**GUIDED, "execution": "lean", "weights": changes}
    policy = member(name, {**GUIDED, "execution": "lean"})
    seen, weights = robots(policy, 1), {id(each) for each in policy.model.parameters()}
    before = answered(policy, seen)
    thinner = policy.with_recipe(recipes.find(values))
    assert torch.equal(answered(thinner, seen), answered(member(name, values), seen))
    assert torch.equal(answered(policy, seen), before)
    own = [each for each in thinner.model.parameters() if id(each) not in weights]
    assert len(own) == 3 * sum(len(decoder.layers) for decoder in thinner.model.decoders[:1])  # gate, up and down


def test_a_slot_that_an_execution_has_no_place_for_is_refused() -> None:
    plugs = {**recipes.find("reference").plugs, "tokens": (Technique(),)}
    with pytest.raises(InputError, match=r"execution=published has no place for tokens, only for weights; another"):
        techniques.check_fit("test", plugs, member("cogact_vit").model)
