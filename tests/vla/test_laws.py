"""The laws of every technique, found by looking: adding one is adding a file, and these tests then hold it to them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.vla.family_members import answered, member, relative, robots
from vla import recipe as recipes
from vla.accelerate import techniques
from vla.accelerate.techniques import SLOTS, Technique, methods
from vla.api import InputError, Observation
from vla.policy import VlaPolicy

LEAN = {"denoising_steps": 5, "guidance_scale": 1.5, "execution": "lean"}
ALL = [(slot, method) for slot in SLOTS for method in methods(slot) if slot != "execution"]
MEMBERS = ("cogact_vit", "openvla_blocks", "pi0")
NOT_HERE = ("needs torchao", "needs a GPU")  # what no machine without them can be asked to run
ROUNDING = 1e-5

Filled = Mapping[str, Any]


def technique(slot: str, method: str) -> type[Technique]:
    """Its class."""
    return techniques._module(slot, method).TECHNIQUE


def example(slot: str, method: str) -> dict[str, Any]:
    """It in its slot, doing something."""
    return {slot: {"method": method, **technique(slot, method).EXAMPLE}}


@cache
def plain(name: str) -> VlaPolicy:
    """The baseline of all comparisons."""
    return member(name, LEAN)


def under(name: str, filled: Filled) -> VlaPolicy:
    """A member with these slots filled; its weights are its own only where they change."""
    return plain(name).with_recipe(recipes.find({**LEAN, **filled}))


def fitting(filled: Filled, names: Sequence[str] = MEMBERS) -> list[tuple[str, VlaPolicy]]:
    """Every member that it applies to; skips the test if this machine cannot run it."""
    made = [(name, policy) for name in names if (policy := _if_it_fits(name, filled)) is not None]
    assert made, f"{filled} applies to no family"
    return made


def _if_it_fits(name: str, filled: Filled) -> VlaPolicy | None:
    try:
        return under(name, filled)
    except InputError as error:
        if any(reason in str(error) for reason in NOT_HERE):
            pytest.skip(str(error))
        if "does not apply to this model" not in str(error):
            raise
        return None


def answers(policy: VlaPolicy, seen: Sequence[Observation]) -> Tensor:
    return torch.cat([answered(policy, [each]) for each in seen])


def later(seen: Sequence[Observation], steps: int) -> list[Observation]:
    return [replace(each, step=each.step + steps) for each in seen]


@pytest.mark.parametrize(("slot", "method"), ALL)
def test_with_options_that_change_nothing_it_is_the_baseline_bit_for_bit(slot: str, method: str) -> None:
    identity = technique(slot, method).IDENTITY
    if identity is None:
        pytest.skip("it always changes numbers")
    for name, policy in fitting({slot: {"method": method, **identity}}):
        seen = robots(policy, 2)
        for each in (seen, later(seen, 1)):
            assert torch.equal(answers(policy, each), answers(plain(name), each)), name


@pytest.mark.parametrize(("slot", "method"), ALL)
def test_names_of_weights_change_only_in_their_slot(slot: str, method: str) -> None:
    for name, policy in fitting(example(slot, method)):
        names, before = set(policy.model.state_dict()), set(plain(name).model.state_dict())
        assert names <= before if slot == "weights" else names == before


@pytest.mark.parametrize(("slot", "method"), ALL)
def test_a_batch_is_its_parts_and_each_session_is_alone(slot: str, method: str) -> None:
    """Also at a second step, when sessions may be remembered; half of them are new then."""
    for name, policy in fitting(example(slot, method)):
        together, seen = under(name, example(slot, method)), robots(policy, 3)
        answers(policy, seen[:2])
        answered(together, seen[:2])
        if technique(slot, method).IDENTITY is None and policy.model.HEAD == "tokens":
            continue  # a rounding that flips by one step of int8 can flip any word
        expected = answers(policy, later(seen, 1))
        assert relative(answered(together, later(seen, 1)), expected) < _tolerance(slot, method), name


@pytest.mark.parametrize(("slot", "method"), ALL)
def test_reset_forgets(slot: str, method: str) -> None:
    for name, policy in fitting(example(slot, method)):
        first, second = robots(policy, 2)
        again = replace(second, session=first.session, step=first.step + 1)
        answers(policy, [first])
        policy.reset(first.session)
        fresh = under(name, example(slot, method))
        assert torch.equal(answers(policy, [again]), answers(fresh, [again])), name


@pytest.mark.parametrize(("slot", "method"), [pair for pair in ALL if pair[0] != "temporal"])
def test_work_does_not_depend_on_what_is_seen(slot: str, method: str) -> None:
    """Only what says so (`dynamic`) may decide by numbers how much runs: the rest can be recorded and planned."""
    for name, policy in fitting(example(slot, method)):
        if any(getattr(each, "dynamic", slot == "decoding") for each in policy.recipe.plugs[slot]):
            continue
        first, second = robots(policy, 2)
        same_words = replace(second, instruction=first.instruction)
        assert _operations(policy, first) == _operations(policy, same_words), name


@pytest.mark.parametrize(("slot", "method"), ALL)
def test_traced_it_is_itself_up_to_rounding(slot: str, method: str) -> None:
    for name, policy in fitting(example(slot, method)):
        traced = under(name, {**example(slot, method), "execution": {"method": "lean", "trace": True}})
        seen = robots(policy, 1)
        for each in (seen, later(seen, 1)):
            assert relative(answers(traced, each), answers(policy, each)) < _tolerance(slot, method), name


@pytest.mark.parametrize(("slot", "method"), [pair for pair in ALL if pair[0] == "action_cache"])
def test_a_cached_head_forgets_one_chunk_before_the_next(slot: str, method: str) -> None:
    for name, policy in fitting(example(slot, method)):
        first, second = robots(policy, 2)
        expected = answers(under(name, example(slot, method)), [second])
        answers(policy, [first])
        assert torch.equal(answers(policy, [second]), expected), name


@pytest.mark.parametrize(("slot", "method"), ALL)
def test_every_pair_runs_or_says_that_it_excludes_itself(slot: str, method: str) -> None:
    fitting(example(slot, method))
    for other_slot, other in _partners(slot, method):
        filled = _together(example(slot, method), example(other_slot, other))
        try:
            policy = under("openvla_blocks" if "decoding" in filled else "cogact_vit", filled)
        except InputError as error:
            _check_refusal(str(error))
            continue
        seen = robots(policy, 1)
        assert answers(policy, seen).isfinite().all(), filled
        if "temporal" in filled:  # it does something from the second step on
            assert answers(policy, later(seen, 1)).isfinite().all(), filled


def _partners(slot: str, method: str) -> list[tuple[str, str]]:
    """What may stand beside it, each pair once."""
    pairs = [pair for pair in combinations(ALL, 2) if pair[0] == (slot, method)]
    return [other for _, other in pairs if other[0] != slot or SLOTS[slot].several]


def _together(one: Filled, other: Filled) -> dict[str, Any]:
    """Both in one recipe, in the order given where they share a slot."""
    slots = dict.fromkeys([*one, *other])
    listed = {slot: [each[slot] for each in (one, other) if slot in each] for slot in slots}
    return {slot: each if SLOTS[slot].several else each[0] for slot, each in listed.items()}


def _check_refusal(reason: str) -> None:
    """A refusal names what excludes what, what does not apply, or what this machine lacks."""
    allowed = ("exclude", "does not apply to this model", "needs a camera's", *NOT_HERE)
    assert any(words in reason for words in allowed), reason


def _operations(policy: VlaPolicy, seen: Observation) -> int:
    with FlopCounterMode(display=False) as counter:
        policy.infer(seen)
    return counter.get_total_flops()


def _tolerance(slot: str, method: str) -> float:
    """Sums in another order; a chunk's own decisions stay the same, but numbers may be rounded to few bits."""
    if technique(slot, method).IDENTITY is None:
        return 0.1
    return 1e-3 if slot in ("temporal", "action_cache") else ROUNDING
