"""Laws of budgets that differ from layer to layer as demonstrations say: PrefixKV's search, stored and read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla.clones import demonstrations
from tests.vla.family_members import GUIDED, member, robots
from tests.vla.small import observation, save_small
from vla import recipe as recipes
from vla.accelerate import decoders
from vla.accelerate.reduction.falling import falling_table
from vla.accelerate.reduction.tables import attention_by_layer, prefix_table, prefix_tables
from vla.accelerate.reduction.watching import watching
from vla.api import InputError
from vla.calibration.measured import calibrate
from vla.calibration.stored import FILE, OF_TOKENS, Calibration, find
from vla.policy import load_policy

LAYERS, TOKENS = 6, 64
BUDGETS = np.linspace(0.2, 1.0, 17).tolist()  # above 1 / LAYERS


def looked_at(kind: str) -> torch.Tensor:
    """(layers, tokens) attention."""
    drawn = torch.rand(LAYERS, TOKENS, generator=torch.Generator().manual_seed(0))
    if kind == "flat":
        return torch.ones(LAYERS, TOKENS)
    if kind == "few":
        return torch.where(drawn > 0.9, drawn, 0) + torch.eye(LAYERS, TOKENS)
    return drawn ** torch.tensor([9.0, 1.0, 6.0, 3.0, 12.0, 2.0])[:, None]


KINDS = pytest.mark.parametrize("kind", ["flat", "few", "uneven"])


@KINDS
def test_a_searched_table_keeps_the_budget_on_average_and_more_of_it_takes_from_no_layer(kind: str) -> None:
    tables = np.array([prefix_table(looked_at(kind), keep) for keep in BUDGETS])
    np.testing.assert_allclose(tables.mean(axis=1), BUDGETS, atol=1e-9)
    assert (np.diff(tables, axis=0) > -1e-9).all()
    assert (tables >= 1 / TOKENS - 1e-9).all()
    np.testing.assert_allclose(tables[-1], 1)


@KINDS
def test_what_a_layer_gets_lasts_for_all_later_ones_and_keeps_the_budget(kind: str) -> None:
    measured = prefix_tables([looked_at(kind), looked_at("uneven")])
    tables = np.array([falling_table(measured, keep) for keep in BUDGETS])
    np.testing.assert_allclose(tables.mean(axis=1), BUDGETS, atol=1e-9)
    assert (np.diff(tables, axis=0) > -1e-9).all()
    assert (np.diff(tables, axis=1) <= 0).all()
    assert (tables[:, 0] == 1).all()


def test_what_the_first_layer_alone_exceeds_is_refused() -> None:
    with pytest.raises(InputError, match=r"above 0.167, the first of 6 layers reads every token; got 0.1"):
        falling_table(prefix_tables([looked_at("flat")]), 0.1)


@pytest.mark.parametrize("name", ["cogact_vit", "openvla", "pi0"])
def test_every_family_can_be_listened_to(name: str) -> None:
    policy = member(name)
    attention = attention_by_layer(policy)(robots(policy, 1)[0])
    side, cameras = policy.model.config.image_size // policy.model.config.patch_size, len(policy.spec.cameras)
    assert attention.shape == (decoders.depth(policy.model), cameras * side**2)
    assert (attention >= 0).all()
    assert (attention.sum(dim=1) <= 1 + 1e-5).all()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("measured") / "checkpoint")


@pytest.fixture(scope="module")
def found(checkpoint: Path) -> Calibration:
    return calibrate([(load_policy(checkpoint=checkpoint), demonstrations())], 3, "squares")


def measured(keep: Any, path: Path | None = None) -> dict[str, Any]:
    named = {} if path is None else {"calibration": str(path)}
    return {**GUIDED, "execution": "lean", "tokens": {"method": "fastv", "budget": {"measured": keep}}, **named}


def test_a_recipe_takes_its_table_from_the_calibration(tmp_path: Path, checkpoint: Path, found: Calibration) -> None:
    assert list(found.tokens) == list(OF_TOKENS)
    found.write(tmp_path / FILE)
    policy = load_policy(checkpoint=checkpoint, recipe=measured(0.75, tmp_path / FILE))
    with watching() as kept:
        policy.infer(observation())
    assert [each.layout.counts for each in kept] == [(2,)]  # 4 in the first of 2 layers: 6 of 8
    everything = load_policy(checkpoint=checkpoint, recipe=measured(1.0, tmp_path / FILE))
    plain = load_policy(checkpoint=checkpoint, recipe={**GUIDED, "execution": "lean"})
    np.testing.assert_array_equal(everything.infer(observation()).actions, plain.infer(observation()).actions)


def test_a_policy_that_shares_weights_finds_it_too(checkpoint: Path, found: Calibration) -> None:
    plain = load_policy(checkpoint=checkpoint)
    found.write(checkpoint / FILE)
    try:
        shared = plain.with_recipe(recipes.find(measured(0.75)))
        alone = load_policy(checkpoint=checkpoint, recipe=measured(0.75))
        np.testing.assert_array_equal(shared.infer(observation()).actions, alone.infer(observation()).actions)
    finally:
        (checkpoint / FILE).unlink()


def test_a_table_of_another_checkpoint_is_refused(tmp_path: Path, checkpoint: Path, found: Calibration) -> None:
    replace(found, checkpoint="0123456789ab").write(tmp_path / FILE)
    with pytest.raises(InputError, match=r"was made for the checkpoint 0123456789ab, this one is \w{12}"):
        load_policy(checkpoint=checkpoint, recipe=measured(0.75, tmp_path / FILE))


def test_a_missing_table_is_refused(tmp_path: Path, checkpoint: Path, found: Calibration) -> None:
    with pytest.raises(InputError, match=r"budget.measured needs a calibration of this checkpoint, there is none"):
        load_policy(checkpoint=checkpoint, recipe=measured(0.75))
    replace(found, tokens={}).write(tmp_path / FILE)
    with pytest.raises(InputError, match=r"the one there says nothing about tokens .cadence-calibrate"):
        load_policy(checkpoint=checkpoint, recipe=measured(0.75, tmp_path / FILE))


def test_a_table_for_layers_that_were_left_out_is_refused(tmp_path: Path, checkpoint: Path, found: Calibration) -> None:
    found.write(tmp_path / FILE)
    pruned = {**measured(0.75, tmp_path / FILE), "weights": {"method": "prune_layers", "layers": [0]}}
    with pytest.raises(InputError, match=r"tokens=fastv does not apply to this model: budget.table has 2 layers, this"):
        load_policy(checkpoint=checkpoint, recipe=pruned)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tokens: tokens.pop("0.5"), "needs the tokens' shares at"),
        (lambda tokens: tokens.update({"0.5": [1.5, 1.0]}), "shares of tokens must be lists of numbers above 0"),
        (lambda tokens: tokens.update({"0.5": [1.0]}), "must know every layer once"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, found: Calibration, change: Any, complaint: str) -> None:
    found.write(tmp_path / FILE)
    values = json.loads((tmp_path / FILE).read_text())
    change(values["tokens"])
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=complaint):
        find(tmp_path, None, found.checkpoint)


@pytest.mark.parametrize("keep", [0.0, 1.5, 1, "half", True])
def test_what_is_no_share_is_refused(keep: Any) -> None:
    with pytest.raises(InputError, match=r"budget.measured must be a share above 0.0 and up to 1.0"):
        recipes.find(measured(keep))


def test_a_method_without_attention_has_no_measured_budget() -> None:
    tokens = {"method": "random", "budget": {"measured": 0.5}}
    with pytest.raises(InputError, match="budget must be an amount, or one for each"):
        recipes.find({**GUIDED, "execution": "lean", "tokens": tokens})
