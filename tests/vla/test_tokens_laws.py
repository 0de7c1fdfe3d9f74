"""Laws of everything that changes visual tokens, found by looking, in every family and with several cameras."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from tests.vla.family_members import GUIDED, answered, member, relative, robots
from tests.vla.test_lean import recorded
from vla import recipe as recipes
from vla.accelerate.lean.decoder import Decoder, Tokens
from vla.accelerate.lean.graphs import captured
from vla.accelerate.reduction.budgets import Mass
from vla.accelerate.reduction.layout import layout_of
from vla.accelerate.reduction.plan import Plan
from vla.accelerate.reduction.watching import watching
from vla.accelerate.techniques import methods
from vla.policy import VlaPolicy

PATCHES = 16  # of a camera, 4 x 4
LARGER: dict[str, dict[str, Any]] = {  # more patches, layers, blocks and cameras than the members have
    "cogact_vit": {"image_size": 64, "vision_depth": 2, "language_depth": 4, "cameras": 2},
    "cogact_dinosiglip": {"image_size": 56, "language_depth": 4},
    "openvla": {"image_size": 56, "language_depth": 3},
    "pi0": {"image_size": 56, "depth": 4},
}
OPTIONS: dict[str, dict[str, Any]] = {  # where half of the tokens is not what the method's own default means
    "fastv": {"budget": 0.5, "layer": 2},
    "efficientvla": {"budget": 0.5, "layer": 0.5},
    "ppe": {},
    "grid_resample": {"grid": [2, 3]},
    "feather": {"budget": 0.25, "stride": 2, "second_stride": None},
    "duet": {},
}
REDUCING = [method for method in methods("tokens") if method != "ppe"]


@cache
def plain(name: str) -> VlaPolicy:
    """The baseline, of a larger member."""
    return member(name, {**GUIDED, "execution": "lean"}, **LARGER[name])


def reducing(name: str, *tokens: Mapping[str, Any]) -> VlaPolicy:
    return plain(name).with_recipe(recipes.find({**GUIDED, "execution": "lean", "tokens": list(tokens)}))


def half(method: str) -> dict[str, Any]:
    return {"method": method, **OPTIONS.get(method, {"budget": 0.5})}


@contextmanager
def sequences(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Tokens, Tokens]]]:
    """Every sequence that is read meanwhile, as it went in and as it came out."""
    read, seen = Decoder.read, []

    def reading(self: Decoder, tokens: Tokens, *others: Any) -> Any:
        left, cache = read(self, tokens, *others)
        seen.append((tokens, left))
        return left, cache

    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "read", reading)
        yield seen


@pytest.mark.parametrize("name", sorted(LARGER))
@pytest.mark.parametrize("method", REDUCING)
def test_what_is_not_visual_stays_where_it_is(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All words, the state and the first token are left, at their positions; kept patches too, camera by camera."""
    policy = reducing(name, half(method))
    seen = robots(policy, 2)
    with sequences(monkeypatch) as read:
        answered(plain(name), seen)
        answered(policy, seen)
    (whole, _), (_, left) = read
    sight = left.sight
    assert sight is not None
    cameras, full = len(sight.layout.counts), whole.positions.shape[1]
    end = sight.start + cameras * PATCHES
    assert left.positions.shape[1] == full - cameras * PATCHES + sum(sight.layout.counts)
    assert torch.equal(left.positions[:, : sight.start], whole.positions[:, : sight.start])
    assert torch.equal(left.positions[:, sight.end :], whole.positions[:, end:])
    assert torch.equal(left.attended[:, sight.end :], whole.attended[:, end:])
    camera = torch.arange(cameras).repeat_interleave(torch.tensor(sight.layout.counts))
    inside = left.positions[:, sight.start : sight.end]
    assert torch.equal(inside, sight.start + camera * PATCHES + sight.patches)
    assert (left.positions[:, : sight.end].diff() > 0).all()
    assert 0 < sum(sight.layout.counts) < cameras * PATCHES


@pytest.mark.parametrize("name", sorted(LARGER))
@pytest.mark.parametrize("method", methods("tokens"))
def test_how_many_stay_is_known_beforehand_and_a_batch_is_its_parts(name: str, method: str) -> None:
    policy = reducing(name, half(method))
    seen, counts, alone = robots(policy, 2), set(), []
    for each in seen:
        with watching() as kept:
            alone.append(answered(policy, [each]))
        counts.add(tuple(left.layout.counts for left in kept))
        assert all(left.patches.shape[1] == sum(left.layout.counts) for left in kept)
        assert all(0 <= int(left.patches.min()) <= int(left.patches.max()) < PATCHES for left in kept)
    assert len(counts) == 1
    assert relative(answered(policy, seen), torch.cat(alone)) < 1e-5
    assert list(policy.model.state_dict()) == list(plain(name).model.state_dict())


@pytest.mark.parametrize("name", sorted(LARGER))
@pytest.mark.parametrize("method", methods("tokens"))
def test_keeping_everything_is_the_baseline_bit_for_bit(name: str, method: str) -> None:
    everything = {"budget": "all", "grid": 1.0, "second": None, "ratios": [1.0, 1.0]}
    technique = recipes.find({**GUIDED, "tokens": method}).plugs["tokens"][0]
    policy = reducing(name, {"method": method, **{k: v for k, v in everything.items() if hasattr(technique, k)}})
    (seen,) = robots(policy, 1)
    assert torch.equal(answered(policy, [seen]), answered(plain(name), [seen]))


@pytest.mark.parametrize("method", methods("tokens"))
def test_recorded_stages_act_as_the_plain_ones(method: str) -> None:
    """What a GPU replays for new inputs is what would run: no choice is made outside of tensors."""
    policy = reducing("cogact_vit", half(method))
    graphs = reducing("cogact_vit", half(method))
    graphs.stages = captured(policy.stages, recorded)
    one, two = robots(policy, 2)
    for asked in ([one], [replace(two, instruction=one.instruction)], [one, two]):
        assert relative(answered(graphs, asked), answered(policy, asked)) < 1e-6


@pytest.mark.parametrize("method", ["tome", "mctf", "grid_resample", "visionzip"])
def test_one_position_for_all_frequencies_is_a_member_s(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PPE with one group stands where one of a token's patches does; with several, words stand where they stood."""
    for groups in (1, 3):
        policy = reducing("cogact_vit", half(method), {"method": "ppe", "groups": groups})
        with sequences(monkeypatch) as read:
            answered(policy, robots(policy, 2))
        ((tokens, _),) = read
        sight = tokens.sight
        assert sight is not None
        assert tokens.positions.shape[2] == groups
        words = tokens.positions[:, sight.end :]
        assert torch.equal(words, words[..., :1].expand_as(words))
        inside = tokens.positions[:, sight.start : sight.end]
        assert len(set(inside[0, :, 0].tolist())) == inside.shape[1]  # no patch is in two tokens


def test_ppe_changes_actions_only_where_tokens_were_merged() -> None:
    seen = robots(plain("cogact_vit"), 2)
    alone = reducing("cogact_vit", {"method": "ppe", "groups": 3})
    assert torch.equal(answered(alone, seen), answered(plain("cogact_vit"), seen))
    merged, placed = (reducing("cogact_vit", half("tome"), *more) for more in ((), ({"method": "ppe"},)))
    assert relative(answered(placed, seen), answered(merged, seen)) > 1e-6


@pytest.mark.parametrize("name", sorted(LARGER))
@pytest.mark.parametrize("method", ["tome", "mctf"])
def test_counting_what_was_merged_is_told_the_language_model(name: str, method: str) -> None:
    merged, counted = (reducing(name, {**half(method), "proportional": told}) for told in (False, True))
    seen = robots(counted, 2)
    apart = torch.cat([answered(counted, [each]) for each in seen])
    assert relative(answered(counted, seen), apart) < 1e-5
    if counted.model.HEAD != "tokens":  # whose words need not change
        assert relative(answered(merged, seen), apart) > 1e-6
    visual = counted.stages.encode(counted.tensors(seen)[0])
    assert visual.bias.exp().sum(dim=1).tolist() == pytest.approx(
        [layout_of(counted.model).patches * _cameras(name)] * 2
    )


def _cameras(name: str) -> int:
    return plain(name).model.config.cameras


def test_feather_without_grid_or_second_stage_is_fastv() -> None:
    options = {"budget": 5, "layer": 2, "rows": "last", "rope": True, "image_only": False}
    feather = reducing("openvla", {"method": "feather", "stride": None, "second": None, **options})
    fastv = reducing("openvla", {"method": "fastv", **options})
    seen = robots(fastv, 2)
    assert torch.equal(answered(feather, seen), answered(fastv, seen))


def test_cameras_may_have_budgets_of_their_own() -> None:
    for method, layer in (("fastv", 2), ("coverage", None), ("random", None), ("uniform_grid", 1)):
        options = {"budget": [3, 9]} | ({} if layer is None else {"layer": layer})
        policy = reducing("pi0", {"method": method, **options})
        with watching() as kept:
            answered(policy, robots(policy, 2))
        assert [each.layout.counts for each in kept] == [(3, 9)]


def test_a_budget_by_mass_keeps_a_bucket_and_a_batch_is_its_parts() -> None:
    mass = {"mass": 0.8, "buckets": [2, 4, 6, 8, 10, 12]}
    policy = reducing("cogact_vit", {"method": "fastv", "layer": 2, "rows": "text", "budget": mass})
    seen = robots(policy, 3)
    kept_alone = []
    for each in seen:
        with watching() as kept:
            answered(policy, [each])
        kept_alone.append(kept[0].layout.counts[0])
        assert kept_alone[-1] in (*mass["buckets"], PATCHES)
    alone = torch.cat([answered(policy, [each]) for each in seen])
    assert relative(answered(policy, seen), alone) < 1e-5


def test_a_budget_by_mass_hides_what_one_camera_needs_and_another_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that needs fewer has the same number of tokens, but nobody sees the rest: also alone in its batch."""
    mass = {"mass": 0.5, "buckets": list(range(1, PATCHES + 1))}
    policy = reducing("cogact_vit", {"method": "fastv", "layer": 2, "rows": "text", "budget": mass})
    needed = torch.tensor([3, 7])

    def uneven(self: Mass, scores: torch.Tensor) -> tuple[int, torch.Tensor]:
        return 7, needed.repeat(len(scores) // 2)

    monkeypatch.setattr(Mass, "pick", uneven)
    (seen,) = robots(policy, 1)
    with sequences(monkeypatch) as read:
        together = answered(policy, [seen])
    ((_, left),) = read
    assert left.sight is not None
    assert left.attended[0, left.sight.start : left.sight.end].unflatten(0, (2, 7)).sum(dim=1).tolist() == [3, 7]
    twice = answered(policy, [seen, replace(seen, session="another")])
    assert relative(together, twice[:1]) < 1e-5


def test_a_table_takes_tokens_out_from_layer_to_layer() -> None:
    policy = reducing("cogact_vit", {"method": "fastv", "budget": {"table": [1.0, 12, 0.5, 3]}})
    with watching() as kept:
        answered(policy, robots(policy, 1))
    assert [each.layout.counts[0] for each in kept] == [12, 8, 3]


def test_published_numbers_of_tokens() -> None:
    full = replace(layout_of(plain("openvla").model), grid=(16, 16), counts=(256,), depth=32)
    options = {"method": "feather", "second": 0.09, "second_stride": None}
    (feather,) = recipes.find({**GUIDED, "tokens": options}).plugs["tokens"]
    assert _left(feather, full) == {8: 36 + 76, 16: int(112 * 0.09)}
    options = {"method": "duet", "budget": 307, "layers": [16, 24], "ratios": [0.5, 0.0]}
    (duet,) = recipes.find({**GUIDED, "tokens": options}).plugs["tokens"]
    wide = replace(full, grid=(24, 24), counts=(576,))
    left = _left(duet, wide)
    assert left == {0: 307, 16: 153, 24: 0}
    assert pytest.approx(191.8, abs=0.06) == (16 * 307 + 8 * 153) / 32


def _left(technique: Any, layout: Any) -> dict[int, int]:
    """Language layer -> tokens from there on."""
    made = {}
    Plan([technique], layout)
    for call in technique.calls(layout):
        layout = call.bind(layout).layout
        made[call.layer] = layout.counts[0]
    return made
