"""What a token technique cannot do is refused at start-up, saying what came and what is allowed."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests.vla.family_members import GUIDED, answered, member, robots
from vla import recipe as recipes
from vla.api import InputError
from vla.policy import VlaPolicy
from vla.timing import StageTimer, part


@pytest.fixture(scope="module")
def policy() -> VlaPolicy:
    return member("cogact_vit", {**GUIDED, "execution": "lean"}, image_size=64, language_depth=3, vision_depth=2)


def reducing(policy: VlaPolicy, tokens: Any) -> VlaPolicy:
    return policy.with_recipe(recipes.find({**GUIDED, "execution": "lean", "tokens": tokens}))


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        ({"method": "random", "budget": 17}, "budget 17 is above the 16 visual tokens that a camera has there"),
        ({"method": "tome", "budget": 17}, "budget 17 is above the 16 visual tokens"),
        ({"method": "tome", "budget": 1}, "tome halves the tokens at most once a block: budget 1 of 16 is too few"),
        ({"method": "visionzip", "budget": 17}, "budget 17 is above the 16 visual tokens"),
        ({"method": "grid_resample", "grid": [5, 2]}, r"grid \[5, 2\] is above the \[4, 4\] patches"),
        (
            {"method": "fastv", "layer": 3},
            "layer 3 is not one that fastv can act in front of; this model allows 1 to 2",
        ),
        ({"method": "efficientvla", "budget": 8, "layer": 9}, "layer 9 is not one that efficientvla"),
        ({"method": "random", "budget": [4, 4]}, r"budget \[4, 4\] is for 2 cameras, this model has 1"),
        ({"method": "fastv", "budget": {"table": [8, 4]}}, "budget.table has 2 layers, this model has 3"),
        ({"method": "tome", "budget": 7, "blocks": 1, "first": 0}, "too few for the 1 blocks from 0 on"),
        ({"method": "tome", "first": 2, "budget": 12}, "first 2 leaves no block to merge in; this tower has 2"),
        (
            [{"method": "random", "budget": 8}, {"method": "uniform_grid", "budget": 9}],
            "budget 9 is above the 8 visual",
        ),
        (["tome", "mctf"], "tome and mctf exclude each other: both act inside the vision tower"),
        (["visionzip", "duet"], "visionzip and duet exclude each other: both act between vision tower and projector"),
        (
            [
                {"method": "fastv", "layer": 1, "budget": {"mass": 0.5, "buckets": [4, 8]}},
                {"method": "uniform_grid", "layer": 2, "budget": 2},
            ],
            "fastv and uniform_grid exclude each other: after a budget by mass",
        ),
        (["ppe", "ppe"], "ppe and ppe exclude each other: both act on positions"),
        (["tome", "grid_resample"], "grid_resample needs a camera's whole grid of 16 patches, .* leaves .8. tokens"),
    ],
)
def test_what_a_model_has_no_room_for(policy: VlaPolicy, tokens: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        reducing(policy, tokens)


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        ({"method": "random", "budget": 0}, "budget must be a whole number of at least 1, a share .*; got 0"),
        ({"method": "random", "budget": 1.5}, "share above 0.0 and up to 1.0, or all; got 1.5"),
        ({"method": "random", "budget": "some"}, "got 'some'"),
        ({"method": "random", "budget": []}, "budget must have at least one amount"),
        ({"method": "random", "budget": {"mass": 0.9, "buckets": [4]}}, "budget must be an amount, or one for each"),
        ({"method": "random", "seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"method": "fastv", "budget": {"mass": 0.9}}, r"must have the keys \['mass', 'buckets'\], or the key table"),
        ({"method": "fastv", "budget": {"mass": 2, "buckets": [4]}}, "budget.mass must be a number from 0 to 1, got 2"),
        ({"method": "fastv", "budget": {"mass": 0.5, "buckets": [0]}}, "budget.buckets must be a list of whole"),
        ({"method": "fastv", "rows": "first"}, "rows must be one of last, text, got 'first'"),
        ({"method": "fastv", "layer": 0}, "layer must be a whole number of at least 1"),
        ({"method": "efficientvla", "alpha": 2}, "alpha must be a number from 0 to 1, got 2"),
        ({"method": "coverage", "objective": "beauty"}, "objective must be one of mmtok, catp, divprune"),
        ({"method": "grid_resample", "mode": "cubic"}, "mode must be one of average, dct, got 'cubic'"),
        ({"method": "grid_resample", "grid": [2, 2, 2]}, r"grid must be rows and columns, got \[2, 2, 2\]"),
        ({"method": "duet", "ratios": [0.5]}, "2 layers need as many ratios"),
        ({"method": "ppe", "groups": 0}, "groups must be a whole number of at least 1, got 0"),
        ({"method": "feather", "stride": 0}, "stride must be a whole number of at least 1, got 0"),
        ({"method": "tome", "proportional": 1}, "tome: proportional must be true or false, got 1"),
        ({"method": "tome", "ratio": 0.5}, r"tokens=tome has no options \['ratio'\]; allowed: budget, first"),
    ],
)
def test_options_out_of_range(tokens: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        recipes.find({**GUIDED, "tokens": tokens})


def test_a_budget_by_mass_is_refused_where_keys_are_read_again() -> None:
    mass = {"method": "fastv", "layer": 1, "budget": {"mass": 0.9, "buckets": [2]}}
    with pytest.raises(InputError, match="keys and values of this model are read again"):
        reducing(member("openvla", {**GUIDED, "execution": "lean"}), mass)


@pytest.mark.parametrize("name", ["openvla", "pi0"])
def test_one_mask_for_all_layers_needs_the_same_tokens_in_all(name: str) -> None:
    policy = member(name, {**GUIDED, "execution": "lean"})
    merged = {"method": "tome", "budget": 0.75, "proportional": True}
    later = {"method": "fastv", "budget": 0.5, "layer": 1}
    with pytest.raises(InputError, match="proportional: true and fastv exclude each other in this model"):
        reducing(policy, [merged, later])
    for allowed in ([merged, {"method": "random", "budget": 0.5}], [{**merged, "budget": "all"}, later]):
        assert answered(reducing(policy, allowed), robots(policy, 2)).isfinite().all()


def test_eager_execution_has_no_place_for_tokens() -> None:
    with pytest.raises(InputError, match="execution=eager has no place for tokens"):
        member("cogact_vit", {**GUIDED, "tokens": "random"})


def test_choosing_is_reported_by_itself_and_counted_in_its_stage(policy: VlaPolicy) -> None:
    (seen,) = robots(policy, 1)
    assert "select" not in policy.infer(seen).timing
    timing = reducing(policy, [{"method": "coverage", "budget": 4}, {"method": "tome", "budget": 8}]).infer(seen).timing
    assert 0 < timing["select"] < timing["encode"] + timing["prefill"]


def test_parts_add_up_and_are_nothing_without_a_timer() -> None:
    timer = StageTimer(torch.device("cpu"))
    with part("select"):
        pass
    with timer("prefill"):
        with part("select"):
            pass
        once = timer.milliseconds["select"]
        with part("select"):
            pass
    assert timer.milliseconds["prefill"] >= timer.milliseconds["select"] > once
