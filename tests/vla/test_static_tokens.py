"""Laws of a language model that reads only the visual tokens that changed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.vla.family_members import GUIDED, answered, member, relative, robots
from vla import recipe as recipes
from vla.accelerate.temporal.language import ReadingSessions
from vla.api import InputError, Observation
from vla.policy import VlaPolicy

OPTIONS: dict[str, Any] = {"method": "static_tokens", "budget": 0.5, "every": 4}
FAMILIES = ["cogact_vit", "cogact_dinosiglip", "openvla_blocks", "pi0"]


def plain(name: str) -> VlaPolicy:
    return member(name, {**GUIDED, "execution": "lean"})


def remembering(name: str, **options: Any) -> VlaPolicy:
    return member(name, {**GUIDED, "execution": "lean", "temporal": {**OPTIONS, **options}})


def later(seen: Observation, steps: int = 1, **changes: Any) -> Observation:
    return replace(seen, step=seen.step + steps, **changes)


def changed(seen: Observation) -> Observation:
    """Of the next step, with another corner in every camera."""
    images = {name: image.copy() for name, image in seen.images.items()}
    for image in images.values():
        image[: image.shape[0] // 4, : image.shape[1] // 4] ^= 255
    return later(seen, images=images)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_did_not_change_gives_the_answer_of_reading_all(name: str) -> None:
    policy = remembering(name)
    (seen,) = robots(policy, 1)
    assert torch.equal(answered(policy, [seen]), answered(plain(name), [seen]))
    assert relative(answered(policy, [later(seen)]), answered(plain(name), [later(seen)])) < 1e-4
    assert heard(policy, seen).age == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_only_some_tokens_go_through_the_language_model(name: str) -> None:
    policy = remembering(name)
    (seen,) = robots(policy, 1)
    read = counted(policy)
    answered(policy, [seen])
    whole = read[0]
    read.clear()
    answered(policy, [changed(seen)])
    again = read[0]
    visual = known(policy, seen).tokens.shape[:2].numel()
    chosen = known(policy, seen).chosen
    assert chosen is not None
    assert again == whole - visual + chosen.numel() < whole


@pytest.mark.parametrize("name", FAMILIES)
def test_reading_every_token_again_is_reading_all(name: str) -> None:
    policy = remembering(name)
    (seen,) = robots(policy, 1)
    answered(policy, [seen])
    now = changed(seen)
    memory: Any = policy.stages.memory
    memory._chosen = lambda frame, pixels: torch.arange(pixels.shape[1]).expand(len(pixels), -1)
    assert relative(answered(policy, [now]), answered(plain(name), [now])) < 1e-4


def test_a_change_is_seen() -> None:
    policy, whole = remembering("cogact_vit"), plain("cogact_vit")
    (seen,) = robots(policy, 1)
    first = answered(policy, [seen])
    now = changed(seen)
    expected = answered(whole, [now])
    stale = answered(whole, [replace(now, images=seen.images)])
    assert relative(answered(policy, [now]), expected) < relative(stale, expected)
    assert not torch.equal(first, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_another_instruction_is_answered_as_if_all_were_read(name: str) -> None:
    """Under a causal mask visual tokens never saw the instruction; elsewhere they are read again."""
    policy = remembering(name)
    (seen,) = robots(policy, 1)
    answered(policy, [seen])
    asked = later(seen, instruction="another thing altogether")
    assert relative(answered(policy, [asked]), answered(plain(name), [asked])) < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_in_a_batch_of_whole_and_partly_read_sessions_each_is_as_alone(name: str) -> None:
    together, alone = remembering(name), remembering(name)
    seen = robots(together, 3)
    answered(together, seen[1:])
    now = [seen[0], later(seen[1]), changed(seen[2])]
    made = answered(together, now)
    for row, each in enumerate(seen):
        if row:
            answered(alone, [each])
        assert relative(made[row : row + 1], answered(alone, [now[row]])) < 1e-3, row


def test_an_answer_that_failed_before_the_language_model_is_made_good() -> None:
    """Its images were read in the tower alone; what depends on them is read whole in the next step."""
    policy = remembering("cogact_vit")
    (seen,) = robots(policy, 1)
    answered(policy, [seen])
    now = changed(seen)
    policy._encode([now])
    after = later(now)
    assert relative(answered(policy, [after]), answered(plain("cogact_vit"), [after])) < 0.1
    assert heard(policy, seen).age == known(policy, seen).age == 2


def test_reset_forgets_the_language_model_s_memory_too() -> None:
    policy = remembering("cogact_vit")
    (seen,) = robots(policy, 1)
    answered(policy, [seen])
    policy.reset(seen.session)
    now = changed(seen)
    assert torch.equal(answered(policy, [now]), answered(plain("cogact_vit"), [now]))


def test_a_session_keeps_no_other_one_s_tensors_in_memory() -> None:
    policy = remembering("cogact_vit")
    seen = robots(policy, 2)
    for observations in (seen, [changed(each) for each in seen]):
        answered(policy, observations)
        for each in seen:
            for tensor in pytree.tree_leaves((heard(policy, each).keys, known(policy, each).tokens)):
                assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_what_takes_visual_tokens_out_is_refused_beside_it() -> None:
    filled = {**GUIDED, "execution": "lean", "temporal": OPTIONS, "tokens": {"method": "uniform_grid", "budget": 0.5}}
    with pytest.raises(InputError, match=r"=static_tokens and tokens=uniform_grid exclude each other.* static_patches"):
        plain("cogact_vit").with_recipe(recipes.find(filled))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"budget": 1.5}, "temporal=static_tokens: budget must be a share up to 1, got 1.5"),
        ({"every": 0.5}, "temporal=static_tokens: every must be a whole number"),
        ({"gripper": "much"}, "temporal=static_tokens: gripper must be a number"),
    ],
)
def test_what_is_out_of_range_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        remembering("cogact_vit", **options)


def counted(policy: VlaPolicy) -> list[int]:
    """Tokens that go through the language model's layers, call by call."""
    stage: Any = policy.stages.prefill
    model, read = stage.__self__, []
    language = model._language if policy.model.HEAD == "flow" else model.decoder
    layer = language._layer

    def watched(hidden: Tensor, *rest: Any) -> Any:
        read.append(hidden.shape[1])
        return layer(hidden, *rest)

    language._layer = watched
    return read


def known(policy: VlaPolicy, seen: Observation) -> Any:
    assert isinstance(policy.stages.memory, ReadingSessions)
    return policy.stages.memory._known[seen.session]


def heard(policy: VlaPolicy, seen: Observation) -> Any:
    return known(policy, seen).language
