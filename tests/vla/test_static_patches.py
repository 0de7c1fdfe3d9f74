"""Laws of reading again only the patches that changed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.vla.family_members import GUIDED, answered, member, relative, robots
from vla import recipe as recipes
from vla.accelerate.stages import Frame
from vla.accelerate.temporal import sessions
from vla.accelerate.temporal.sessions import Sessions
from vla.api import InputError, Observation
from vla.policy import VlaPolicy

LEAN = {**GUIDED, "execution": "lean"}
SIDE = 16
OPTIONS: dict[str, Any] = {"method": "static_patches", "budget": 0.5, "relevant": 0.0, "every": 4}


@pytest.fixture(scope="module")
def plain() -> VlaPolicy:
    return member("cogact_vit", LEAN)


def remembering(plain: VlaPolicy, **options: Any) -> VlaPolicy:
    return plain.with_recipe(recipes.find({**LEAN, "temporal": {**OPTIONS, **options}}))


def scene(seed: int = 0) -> Tensor:
    """(1, 1, 3, 32, 32) pixels in [0, 1]: four patches."""
    return torch.rand(1, 1, 3, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(seed))


def changed(pixels: Tensor, patch: int, seed: int = 9) -> Tensor:
    """With another content in one patch."""
    other, (row, column) = pixels.clone(), divmod(patch, 2)
    square = (..., slice(row * SIDE, (row + 1) * SIDE), slice(column * SIDE, (column + 1) * SIDE))
    other[square] = scene(seed)[square]
    return other


@torch.inference_mode()
def read(policy: VlaPolicy, pixels: Tensor, step: int = 0, session: str = "a", gripper: float | None = 1.0) -> Tensor:
    """(patches, width) visual tokens."""
    if policy.stages.memory is not None:
        policy.stages.memory.begin([Frame(session, step, gripper)], pixels)
    return policy.stages.encode((pixels - 0.5) / 0.5)[0]


def test_what_did_not_change_is_as_it_was(plain: VlaPolicy) -> None:
    policy = remembering(plain)
    first = read(policy, scene())
    assert torch.equal(first, read(plain, scene()))
    torch.testing.assert_close(read(policy, scene(), step=1), first, rtol=1e-4, atol=1e-5)


def test_a_patch_that_changed_is_read_again_and_the_static_ones_are_not(plain: VlaPolicy) -> None:
    policy = remembering(plain, budget=0.25)
    first = read(policy, scene())
    second = read(policy, changed(scene(), 2), step=1)
    same = [bool(torch.equal(second[patch], first[patch])) for patch in range(4)]
    assert same == [True, True, False, True]
    whole = read(plain, changed(scene(), 2))
    assert relative(second[2], whole[2]) < 0.1 < relative(first[2], whole[2])


@torch.inference_mode()
@pytest.mark.parametrize("name", ["cogact_vit", "cogact_dinosiglip", "pi0"])
def test_reading_every_patch_again_is_reading_the_image(name: str) -> None:
    policy = member(name, {**LEAN, "temporal": OPTIONS})
    trunk: Any = policy.stages.encode
    (tower,), images = trunk.__self__.tower.args, policy.tensors(robots(policy, 1))[0].flatten(0, 1)
    before, keys = tower.again(images.flip(-1), None, None)
    patches = torch.arange(before.shape[1]).expand(len(images), -1)
    again, _ = tower.again(images, patches, keys)
    torch.testing.assert_close(again, tower(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("patches", "step", "gripper", "whole"),
    [
        ((1,), 1, 1.0, False),
        ((0, 1, 2), 1, 1.0, True),  # more than the budget
        ((1,), 1, 0.5, True),  # the gripper closes
        ((1,), 0, 1.0, False),  # asked again
        ((1,), 1, None, False),
    ],
)
def test_the_whole_image_is_read_after_a_large_change_or_when_the_gripper_moves(
    plain: VlaPolicy, patches: tuple[int, ...], step: int, gripper: float | None, whole: bool
) -> None:
    policy = remembering(plain)
    read(policy, scene())
    now = scene()
    for patch in patches:
        now = changed(now, patch)
    assert torch.equal(read(policy, now, step, gripper=gripper), read(plain, now)) is whole


def test_the_whole_image_is_read_every_so_often_and_when_steps_begin_anew(plain: VlaPolicy) -> None:
    policy, memory = remembering(plain), []
    for step in (5, 6, 7, 8, 9, 2, 3):
        read(policy, changed(scene(), 1, seed=step), step)
        memory.append(_known(policy)["a"].age)
    assert memory == [0, 1, 2, 3, 0, 0, 1]


def test_slow_changes_add_up_to_be_seen(plain: VlaPolicy) -> None:
    """Each frame is nearly the one before, the last is not the first."""
    policy = remembering(plain, every=100, budget=0.25)
    first, last = scene(), changed(scene(), 3)
    start = end = read(policy, first)
    for step in range(1, 21):
        end = read(policy, torch.lerp(first, last, step / 20), step)
    expected = read(plain, last)
    assert relative(end[3], expected[3]) < 0.05 < relative(start[3], expected[3])


def test_black_patches_are_as_any_other(plain: VlaPolicy) -> None:
    """Black that stays black is not read again, nor for a little noise; what turns black or brighter is."""
    policy, black = remembering(plain, budget=0.25, every=100), scene()
    black[..., :SIDE, :] = 0
    shown = [black, changed(black, 3), black + 1e-3, black, torch.where(black == 0, 0.5, black)]
    age = []
    for step, pixels in enumerate(shown):
        read(policy, pixels, step)
        age.append(_known(policy)["a"].age)
    assert age == [0, 1, 2, 3, 0]  # two black patches become grey: more than the budget


def test_sessions_do_not_see_each_other(plain: VlaPolicy) -> None:
    policy, alone = remembering(plain), remembering(plain)
    read(policy, scene(1), session="a")
    read(alone, scene(1), session="a")
    read(policy, scene(2), session="b")
    now = changed(scene(1), 0)
    assert torch.equal(read(policy, now, 1, session="a"), read(alone, now, 1, session="a"))


def test_a_session_that_was_reset_is_read_whole(plain: VlaPolicy) -> None:
    policy = remembering(plain)
    read(policy, scene())
    policy.reset("a")
    policy.reset("never seen")
    now = changed(scene(), 1)
    assert torch.equal(read(policy, now, 1), read(plain, now))


def seen_later(policy: VlaPolicy) -> list[Observation]:
    """Of the step after `robots`, whose other sessions did not move."""
    return [replace(each, step=each.step + 1) for each in robots(policy, 2)]


def test_a_batch_that_is_refused_changes_no_session_s_memory(plain: VlaPolicy) -> None:
    policy = remembering(plain)
    policy.infer_batch(robots(policy, 2))
    first, second = seen_later(policy)
    with pytest.raises(InputError, match="at most"):
        policy.infer_batch([first, replace(second, instruction="unintelligible " * 50)])
    assert [known.age for known in _known(policy).values()] == [0, 0]


def test_a_session_is_in_a_batch_once(plain: VlaPolicy) -> None:
    first, later = robots(plain, 1)[0], seen_later(plain)[0]
    with pytest.raises(InputError, match=r"may be in a batch once, .* got \['robot-0', 'robot-0'\]"):
        remembering(plain).infer_batch([first, later])
    plain.infer_batch([first, later])  # nothing is remembered


def test_a_session_keeps_no_other_one_s_tensors_in_memory(plain: VlaPolicy) -> None:
    policy = remembering(plain, relevant=0.25)
    for observations in (robots(policy, 2), seen_later(policy)):
        policy.infer_batch(observations)
        known = _known(policy)["robot-0"]
        for tensor in pytree.tree_leaves((known.tokens, known.keys, known.pixels, known.relevance)):
            assert tensor.untyped_storage().nbytes() <= 3 * tensor.nbytes // 2


def test_memory_is_bounded(plain: VlaPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 2)
    policy = remembering(plain)
    for session in ("a", "b", "a", "c"):
        read(policy, scene(), session=session)
    assert list(_known(policy)) == ["a", "c"]


def test_what_the_instruction_looks_at_is_read_again_though_it_did_not_change(plain: VlaPolicy) -> None:
    policy = remembering(plain, budget=0.5, relevant=0.25)
    first = robots(policy, 1)[0]
    policy.infer(first)
    known = _known(policy)[first.session]
    assert known.relevance is not None
    torch.testing.assert_close(known.relevance.sum(), torch.tensor(1.0))
    known.relevance = torch.tensor([[0.0, 0.0, 0.1, 0.9]])
    chosen = policy.stages.memory._chosen(Frame(first.session, 1, None), known.pixels)  # type: ignore[union-attr]
    assert chosen is not None
    assert 3 in chosen[0].tolist()


def test_actions_stay_near_those_of_whole_images(plain: VlaPolicy) -> None:
    policy = remembering(plain, relevant=0.25)
    (seen,) = robots(policy, 1)
    policy.infer(seen)
    later = replace(seen, step=1)
    assert relative(answered(policy, [later]), answered(plain, [later])) < 1e-4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"budget": 0.0}, "budget must be a share up to 1, got 0.0"),
        ({"threshold": 1.5}, "threshold must be a share up to 1, got 1.5"),
        ({"relevant": 0.75}, "relevant=0.75 patches do not fit into budget=0.5"),
        ({"every": 0}, "every must be a whole number of at least 1"),
        ({"gripper": -1}, "gripper must be a number of at least 0"),
    ],
)
def test_what_is_out_of_range_is_refused(plain: VlaPolicy, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        remembering(plain, **options)


def test_a_tower_that_merges_patches_cannot_read_some_of_them_again(plain: VlaPolicy) -> None:
    with pytest.raises(InputError, match="temporal=static_patches and tokens=tome exclude each other"):
        plain.with_recipe(recipes.find({**LEAN, "temporal": OPTIONS, "tokens": {"method": "tome", "budget": 0.5}}))


def _known(policy: VlaPolicy) -> Any:
    assert isinstance(policy.stages.memory, Sessions)
    return policy.stages.memory._known
