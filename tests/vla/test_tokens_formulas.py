"""Selectors, mergers and budgets give what their papers' formulas give."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.vla import token_formulas as formulas
from vla.accelerate.reduction.budgets import Fixed, Mass, Table, carrying
from vla.accelerate.reduction.calls import Features
from vla.accelerate.reduction.greedy import farthest, greedy_cover
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.merging import Patches, even_to_odd, pairs
from vla.accelerate.reduction.seen import Seen
from vla.accelerate.reduction.summing_up import summed_up
from vla.accelerate.reduction.tables import prefix_table
from vla.accelerate.tokens.coverage import Coverage
from vla.accelerate.tokens.efficientvla import relevant_and_diverse
from vla.accelerate.tokens.fastv import FastV
from vla.accelerate.tokens.feather import Feather
from vla.accelerate.tokens.grid_resample import operator
from vla.accelerate.tokens.mctf import both_ways, likeness
from vla.accelerate.tokens.ppe import patches_of
from vla.accelerate.tokens.random import Random
from vla.accelerate.tokens.tome import ByKeys, ToMe
from vla.accelerate.tokens.uniform_grid import UniformGrid

CPU = torch.device("cpu")
ROWS, TOKENS = 2, 36


def drawn(*shape: int, seed: int = 0, positive: bool = False) -> Tensor:
    values = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return values.abs() + 0.01 if positive else values


@pytest.mark.parametrize(("grid", "small"), [((16, 16), (8, 8)), ((16, 16), (11, 11)), ((6, 4), (3, 3))])
@pytest.mark.parametrize("gain", [True, False])
def test_the_cosine_transform_is_one_matrix(grid: tuple[int, int], small: tuple[int, int], gain: bool) -> None:
    tokens = drawn(grid[0] * grid[1], 5)
    made = operator("dct", gain, grid, small, CPU).double() @ tokens
    np.testing.assert_allclose(made, formulas.fourier(tokens.numpy(), grid, small, gain), atol=1e-6)


def test_resampling_keeps_a_flat_image_flat_unless_the_gain_is_left_in() -> None:
    flat = torch.ones(256, 1)
    for mode, gain, level in (("average", True, 1), ("dct", True, 1), ("dct", False, 2)):
        made = operator(mode, gain, (16, 16), (8, 8), CPU) @ flat
        torch.testing.assert_close(made, torch.full_like(made, level))
    made = operator("dct", False, (16, 16), (11, 11), CPU) @ flat
    assert made.mean() == pytest.approx(16 / 11)


def test_averaging_is_the_mean_of_each_cell() -> None:
    image = drawn(36, 3)
    made = operator("average", True, (6, 6), (3, 3), CPU).double() @ image
    cells = image.view(3, 2, 3, 2, 3).mean(dim=(1, 3)).flatten(0, 1)
    torch.testing.assert_close(made, cells, atol=1e-6, rtol=0)


class Shown(Seen):
    """What a selector sees, made up; the last two words of the second row are padding."""

    def __init__(self, grid: tuple[int, int] = (6, 6), rows: int = ROWS) -> None:
        count = grid[0] * grid[1]
        self.tokens, self.grid, self.cameras = drawn(rows, count, 12), grid, 1
        self.patches = torch.arange(count).expand(rows, -1)
        self.scores = drawn(rows, count, seed=3, positive=True)
        self._features, self._words = drawn(rows, count, 9, seed=1), drawn(rows, 7, 12, seed=2)
        self._spoken = torch.ones(rows, 7, dtype=torch.bool)
        self._spoken[1:, 5:] = False

    @property
    def features(self) -> Tensor:
        return self._features

    @property
    def words(self) -> tuple[Tensor, Tensor]:
        return self._words, self._spoken

    def attention(self, rows: str, *, rope: bool, apart: bool, layer: str = "previous") -> Tensor:
        return self.scores


@pytest.mark.parametrize("objective", ["mmtok", "catp", "divprune"])
def test_coverage(objective: str) -> None:
    seen = Shown()
    chosen = Coverage(objective=objective).choose(seen, 10)
    for row in range(ROWS):
        visual, features = seen.tokens[row].numpy(), seen.features[row].numpy()
        words = seen.words[0][row][seen.words[1][row]].numpy()
        expected = {
            "mmtok": lambda visual=visual, features=features, words=words: formulas.mmtok(visual, features, words, 10),
            "catp": lambda visual=visual, words=words: formulas.catp(visual, words, 10),
            "divprune": lambda visual=visual: formulas.divprune(visual, 10),
        }[objective]()
        assert chosen[row].tolist() == expected.tolist()


def test_without_weight_for_the_image_only_words_count() -> None:
    seen = Shown()
    before = Coverage(image_weight=0.0).choose(seen, 6)
    seen._features = drawn(ROWS, TOKENS, 9, seed=9)
    assert torch.equal(Coverage(image_weight=0.0).choose(seen, 6), before)


def test_feather_s_first_stage_is_grid_and_ranking_filled_up() -> None:
    """At least the published union; what is more follows in the ranking."""
    seen = Shown((16, 16))
    (first, _) = Feather().calls(Layout((16, 16), (256,), 32, 23))
    assert first.bind(Layout((16, 16), (256,), 32, 23)).layout.counts == (112,)
    for row, chosen in enumerate(Feather()._grid_and_ranked(3, seen, 112).tolist()):
        ranked = np.argsort(-seen.scores[row].numpy(), kind="stable")
        grid = np.arange(256).reshape(16, 16)[::3, ::3].ravel()
        published = set(grid.tolist()) | set(ranked[:76].tolist())
        assert published <= set(chosen)
        assert len(grid) == 36
        beyond = [int(i) for i in ranked if int(i) not in published][: 112 - len(published)]
        assert set(chosen) == published | set(beyond)


def test_a_ranking_keeps_the_highest() -> None:
    seen = Shown()
    chosen = FastV().choose(seen, 9)
    assert torch.equal(chosen, seen.scores.topk(9, dim=1).indices.sort(dim=1).values)


@pytest.mark.parametrize("count", [1, 4, 9, 10, 18, 35])
def test_a_uniform_grid_is_spread_over_rows_and_columns(count: int) -> None:
    seen = Shown()
    chosen = UniformGrid().choose(seen, count)[0]
    assert len(set(chosen.tolist())) == count
    assert (chosen.diff() > 0).all()
    per_row = torch.bincount(chosen // 6, minlength=6)
    used = per_row[per_row > 0]
    assert used.max() - used.min() <= 1
    assert abs(float((chosen // 6).float().mean()) - 2.5) <= 0.75
    if count == 9:
        assert chosen.tolist() == [6 * row + column for row in (1, 3, 5) for column in (1, 3, 5)]


def test_random_draws_differ_between_cameras_and_seeds_only() -> None:
    seen = Shown(rows=4)
    seen.cameras = 2
    chosen = Random().choose(seen, 9)
    assert torch.equal(chosen[:2], chosen[2:])
    assert not torch.equal(chosen[0], chosen[1])
    assert not torch.equal(Random(seed=1).choose(seen, 9), chosen)


def test_greedy_covering_is_near_the_best_choice() -> None:
    coverage = drawn(3, 10, 12, positive=True)
    chosen = greedy_cover(coverage, 4)
    for row, index in zip(coverage, chosen, strict=True):
        best = max(float(row[list(some)].amax(dim=0).sum()) for some in combinations(range(10), 4))
        assert float(row[index].amax(dim=0).sum()) >= (1 - 1 / np.e) * best


def test_farthest_tokens_are_divprune_s() -> None:
    visual = drawn(ROWS, TOKENS, 8)
    unit = torch.nn.functional.normalize(visual, dim=-1)
    chosen = farthest(1 - unit @ unit.transpose(-1, -2), 9)
    for row, index in zip(visual.numpy(), chosen, strict=True):
        assert index.tolist() == formulas.divprune(row, 9).tolist()


@pytest.mark.parametrize(("count", "keys", "alpha"), [(12, 4, 0.5), (7, 4, 0.9), (5, 1, 0.0), (4, 4, 0.5)])
def test_efficientvla(count: int, keys: int, alpha: float) -> None:
    relevance, tokens = drawn(ROWS, TOKENS, positive=True), drawn(ROWS, TOKENS, 6, seed=1)
    chosen = relevant_and_diverse(relevance, tokens, count, keys, alpha)
    for row in range(ROWS):
        expected = formulas.efficientvla(relevance[row].numpy(), tokens[row].numpy(), count, keys, alpha)
        assert chosen[row].tolist() == expected.tolist()


@pytest.mark.parametrize("width", [None, 4])
def test_visionzip_and_duet(width: int | None) -> None:
    tokens, keys = drawn(ROWS, TOKENS, 6), drawn(ROWS, TOKENS, 4, seed=1)
    importance = drawn(ROWS, TOKENS, seed=2, positive=True)
    patches = torch.arange(TOKENS).expand(ROWS, -1)
    found = summed_up(Features(tokens, patches, None, importance, keys), 9, 3, width, "add")
    assert found.owner is not None
    for row in range(ROWS):
        stand, made = formulas.visionzip(importance[row].numpy(), keys[row].numpy(), tokens[row].numpy(), 9, 3, width)
        assert found.patches[row].tolist() == stand.tolist()
        np.testing.assert_allclose(found.tokens[row], made, atol=1e-6)
        assert found.owner[row][found.patches[row]].tolist() == list(range(12))  # a token owns its own patch
    gathered = 9 + 3 * 4 if width else TOKENS
    assert (found.owner >= 0).sum(dim=1).tolist() == [gathered] * ROWS


def test_without_contextual_tokens_visionzip_is_a_ranking() -> None:
    importance, patches = drawn(1, TOKENS, positive=True), torch.arange(TOKENS)[None]
    found = summed_up(Features(drawn(1, TOKENS, 3), patches, None, importance, drawn(1, TOKENS, 3)), 7, 0, None, "add")
    assert found.patches[0].tolist() == importance[0].topk(7).indices.sort().values.tolist()


def test_duet_of_any_width_is_visionzip_but_for_the_order_of_anchors() -> None:
    found = Features(
        drawn(1, TOKENS, 3),
        torch.arange(TOKENS)[None],
        None,
        torch.linspace(2, 1, TOKENS)[None],  # in the order of importance already
        drawn(1, TOKENS, 3, seed=1),
    )
    wide, zipped = summed_up(found, 9, 3, TOKENS, "add"), summed_up(found, 9, 3, None, "add")
    torch.testing.assert_close(wide.tokens, zipped.tokens)


def test_tome_and_chains_of_it_conserve_patches() -> None:
    tokens, metric = drawn(1, TOKENS, 4), drawn(1, TOKENS, 3, seed=1)
    patches, expected, size = Patches(TOKENS, 1, CPU), tokens[0].numpy(), np.ones(TOKENS)
    for block in range(3):
        keys = metric[:, : tokens.shape[1]]
        expected, size, _ = formulas.tome(expected, keys[0].numpy(), size, 5)
        tokens = patches.merged(tokens, 0, ByKeys({}).merge(block, 5, tokens, keys, None, patches))
        np.testing.assert_allclose(tokens[0], expected, atol=1e-6)
        assert patches.sizes is not None
        assert patches.owner is not None
        np.testing.assert_allclose(patches.sizes[0], size)
        assert patches.sizes.sum() == TOKENS
        assert torch.bincount(patches.owner[0]).tolist() == size.tolist()
    assert tokens.shape[1] == TOKENS - 15
    assert (patches.index[0].diff() > 0).all()


def test_means_add_up_to_one_and_leave_what_comes_first_alone() -> None:
    keys = drawn(2, 8, 3)
    merge = even_to_odd(pairs(keys), 3).merge(0, 3, drawn(2, 8, positive=True))
    pool, join = merge.pooling(2, torch.float64), merge.joining(2, torch.float64)
    torch.testing.assert_close(pool.sum(dim=-1), torch.ones(2, 7, dtype=torch.float64))
    assert torch.equal(join.sum(dim=1), torch.ones(2, 10, dtype=torch.float64))
    hidden = drawn(2, 10, 5)
    torch.testing.assert_close(merge.mean(hidden, 2), pool @ hidden)  # as a processor and as a GPU does it
    assert torch.equal(pool[:, :2, :2], torch.eye(2, dtype=torch.float64).expand(2, -1, -1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"first": 0}, {0: 2, 1: 2, 2: 2, 3: 2}),
        ({"first": 0.34}, {1: 3, 2: 3, 3: 2}),
        ({"first": 0, "blocks": 1}, {0: 8}),
        ({"first": 1, "blocks": 2}, {1: 4, 2: 4}),
        ({"first": 2, "blocks": 9}, {2: 4, 3: 4}),
        ({"first": 0, "blocks": 0.5}, {0: 4, 1: 4}),
    ],
)
def test_as_many_patches_merge_in_each_of_the_blocks_that_merge(
    options: dict[str, Any], expected: dict[int, int]
) -> None:
    (call,) = ToMe(budget=8, **options).calls(Layout((4, 4), (16,), 3, 4))
    bound = call.bind(Layout((4, 4), (16,), 3, 4))
    assert bound.layout.counts == (8,)
    assert bound.act.merges == expected


def test_mctf_weighs_and_merges_both_ways() -> None:
    features, received = drawn(1, 12, 4), drawn(1, 12, seed=1, positive=True)
    size = torch.randint(1, 5, (1, 12), generator=torch.Generator().manual_seed(0)).double()
    weights = likeness(features, received, size, (1.0, 20.0, 40.0))
    expected = formulas.mctf(features[0].numpy(), received[0].numpy(), size[0].numpy())
    np.testing.assert_allclose(weights[0], expected, rtol=1e-5)
    target = both_ways(weights, 5).target[0].tolist()
    stays = [i for i, to in enumerate(target) if to == i]
    assert len(stays) == 12 - 5
    assert all(target[to] == to for to in target)  # whoever goes, goes to one that stays
    forth = np.argsort(-expected.max(axis=1))[:2]
    assert {2 * int(i) for i in forth} <= set(range(12)) - set(stays)


def test_ppe() -> None:
    owner = torch.tensor([[0, 1, 1, 0, 2, 0, 0, 2], [2, 2, 2, 0, 0, 0, 1, 1]])
    patches = torch.zeros(2, 3, dtype=torch.int64)
    for groups in (1, 3, 8):
        made = patches_of(groups, patches, owner)
        for row in range(2):
            assert made[row].tolist() == formulas.ppe(owner[row].numpy(), 3, groups).tolist()
    alone = patches_of(4, torch.tensor([[3, 5]]), None)
    assert alone.tolist() == [[[3] * 4, [5] * 4]]


@pytest.mark.parametrize("mass", [0.5, 0.96, 0.975, 1.0])
def test_zipvl_s_rule(mass: float) -> None:
    scores = drawn(4, TOKENS, positive=True) ** 3
    expected = [formulas.zipvl(row, mass) for row in scores.numpy()]
    assert carrying(scores, mass).tolist() == pytest.approx(expected, abs=1)  # sums in float32
    longest, kept = Mass(mass, (4, 8, 16, 64)).pick(scores)
    assert longest == int(kept.max())
    for count, needed in zip(kept.tolist(), carrying(scores, mass).tolist(), strict=True):
        assert count == min(bucket for bucket in (4, 8, 16, TOKENS) if bucket >= needed)


def test_prefixkv_s_search_keeps_the_given_share_and_more_where_attention_is_spread() -> None:
    sharpness = torch.linspace(0.2, 12, 32)[:, None]
    scores = drawn(1, 256, positive=True) ** sharpness
    table = prefix_table(scores, 0.5)
    assert np.mean(table) == pytest.approx(0.5, abs=0.01)
    assert all(first >= second for first, second in zip(table, table[4:], strict=False))
    share = 0.9
    kept = formulas.prefixkv(scores.numpy(), share)
    again = prefix_table(scores, float(kept.mean() / 256))
    np.testing.assert_allclose(np.array(again) * 256, kept, atol=4)
    assert prefix_table(scores, 1.0) == pytest.approx([1.0] * 32)


def test_a_table_never_takes_out_what_a_later_layer_needs() -> None:
    assert Table((8, 6, 2, 4, 1)).steps(8, 5) == [(1, 6), (2, 4), (4, 1)]
    assert Table((1.0, 0.5, 0.5)).steps(10, 3) == [(1, 5)]


def test_shares_are_rounded_down_but_never_to_nothing() -> None:
    assert Fixed((0.3,)).counts((256, 10)) == (76, 3)
    assert Fixed((0.01,)).counts((10,)) == (1,)
    assert Fixed((0.29,)).counts((100,)) == (29,)
    assert Fixed((4, "all")).counts((9, 9)) == (4, 9)
