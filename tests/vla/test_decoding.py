"""Decoders: exact ones say what greedy decoding says, all count their passes, wrong options are refused."""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vla.family_members import GUIDED, member, robots
from tests.vla.word_clones import TOKENS, loud_speaker, speaker
from vla import recipe as recipes
from vla.accelerate.stages import Frame
from vla.accelerate.techniques import plugs_of
from vla.api import InputError
from vla.decoding.autoregressive import Autoregressive
from vla.decoding.block_diffusion import BlockDiffusion
from vla.decoding.decoder import ACCEPTANCE, PASSES, WORDS_PER_PASS, Decoder
from vla.decoding.jacobi import Jacobi
from vla.decoding.self_speculative import SelfSpeculative
from vla.models.openvla import OpenVla
from vla.policy import VlaPolicy

EXACT = [
    Jacobi(),
    Jacobi(block=3),
    Jacobi(warm=False, block=5),
    SelfSpeculative(),
    SelfSpeculative(block=4),
    SelfSpeculative(redraft=False),
    SelfSpeculative(block=5, redraft=False),
]
WORDS = 12


@pytest.fixture(scope="module", params=[0, 1])
def model(request: pytest.FixtureRequest) -> OpenVla:
    return loud_speaker(request.param)


def prefilled(model: OpenVla, batch: int = 1, seed: int = 0) -> Any:
    """Of random inputs; the first prompt of several has padding."""
    random = torch.Generator().manual_seed(seed)
    visual, state = torch.randn(batch, 4, 32, generator=random), torch.randn(batch, 2, generator=random)
    prompt = torch.randint(5, 99, (batch, 4), generator=random)
    if batch > 1:
        prompt[0, :2] = model.config.pad_id
    return model.prefill(visual, prompt, state)


def greedy(model: OpenVla, batch: int = 1, seed: int = 0) -> Tensor:
    return Autoregressive().decoder().decode(model, prefilled(model, batch, seed))


@torch.no_grad()
@pytest.mark.parametrize("how", EXACT)
@pytest.mark.parametrize("batch", [1, 3])
def test_exact_decoders_say_what_greedy_decoding_says(model: OpenVla, how: Any, batch: int) -> None:
    for seed in range(3):
        assert torch.equal(how.decoder().decode(model, prefilled(model, batch, seed)), greedy(model, batch, seed))


@torch.no_grad()
@pytest.mark.parametrize("horizon", [1, 2, 8])
@pytest.mark.parametrize("block", [2, 7, None])
def test_they_are_exact_for_every_length_of_chunk(horizon: int, block: int | None) -> None:
    model = loud_speaker()
    model.config = replace(model.config, horizon=horizon)
    block = None if block is None else min(block, model.config.words)
    expected = greedy(model)
    assert expected.shape == (1, 3 * horizon)
    for how in (Jacobi(block=block), SelfSpeculative(block=block), SelfSpeculative(block=block, redraft=False)):
        assert torch.equal(how.decoder().decode(model, prefilled(model)), expected)


@torch.no_grad()
@pytest.mark.parametrize("how", [*EXACT, Autoregressive(), BlockDiffusion(), BlockDiffusion(block=3)])
def test_a_policy_under_every_execution_says_the_same(how: Any) -> None:
    """Eager and lean stages have caches of their own."""
    options = asdict(how)
    if options.get("block"):
        options["block"] = 7
    filled = {"decoding": {"method": how.method, **options}}
    eager = member("openvla", {**GUIDED, **filled})
    lean = eager.with_recipe(recipes.find({**GUIDED, **filled, "execution": "lean"}))
    for one, other in zip(eager.infer_batch(robots(eager)), lean.infer_batch(robots(lean)), strict=True):
        assert (one.actions == other.actions).all()
        assert one.statistics == other.statistics


def decoded(policy: VlaPolicy, **changes: Mapping[str, Any]) -> list[Any]:
    other = policy.with_recipe(recipes.find({**GUIDED, "execution": "lean", **changes}))
    return [chunk.actions.tolist() for chunk in other.infer_batch(robots(other))]


@pytest.mark.parametrize("method", ["jacobi", "self_speculative"])
@pytest.mark.parametrize(
    "tokens",
    [{"method": "efficientvla", "budget": 2, "key_tokens": 1, "layer": 1}, {"method": "uniform_grid", "budget": 2}],
)
def test_they_are_exact_after_tokens_were_taken_out(method: str, tokens: dict[str, Any]) -> None:
    policy = member("openvla")
    expected = decoded(policy, tokens=tokens)
    assert expected != decoded(policy)
    assert decoded(policy, tokens=tokens, decoding={"method": method}) == expected


@pytest.mark.parametrize("method", ["jacobi", "self_speculative"])
def test_they_are_exact_after_layers_were_taken_out(method: str) -> None:
    pruned = {**GUIDED, "execution": "lean", "weights": {"method": "prune_layers", "layers": [1]}}
    answers = [
        [chunk.actions.tolist() for chunk in policy.infer_batch(robots(policy))]
        for policy in (member("openvla", {**pruned, "decoding": name}) for name in ("autoregressive", method))
    ]
    assert answers[0] == answers[1]


def steps(model: OpenVla, decoder: Decoder, step: int, session: str = "a", seed: int = 0) -> float:
    """Passes of one answer to a session."""
    decoder.begin([Frame(session, step, None)])
    decoder.decode(model, prefilled(model, seed=seed))
    return decoder.statistics[PASSES]


@torch.no_grad()
def test_jacobi_begins_with_what_the_session_was_answered_before() -> None:
    model, decoder = loud_speaker(), Jacobi().decoder()
    cold = steps(model, decoder, 1)
    before = torch.cat([greedy(model)[0, :3], greedy(model)[0, :-3]])  # one step on, it is right for three actions
    decoder._known["a"] = (0, before)  # type: ignore[attr-defined]
    assert steps(model, decoder, 1) <= cold - 6
    assert steps(model, decoder, 1) == cold  # the same step again: its own answer is no guess
    assert steps(model, decoder, 1, session="b") == cold
    decoder._known["a"] = (0, before)  # type: ignore[attr-defined]
    decoder.forget("a")
    assert steps(model, decoder, 1) == cold


@torch.no_grad()
def test_a_guess_moves_on_with_the_steps_and_is_dropped_when_too_old_or_of_another_episode() -> None:
    model, decoder = loud_speaker(), Jacobi().decoder()
    steps(model, decoder, 5)
    first = greedy(model)[0]
    moved = decoder._moved_on(Frame("a", 6, None), 3)  # type: ignore[attr-defined]
    assert moved.tolist() == [*first[3:].tolist(), *first[-3:].tolist()]
    assert decoder._moved_on(Frame("a", 4, None), 3) is None  # type: ignore[attr-defined]
    assert decoder._moved_on(Frame("a", 9, None), 3) is None  # type: ignore[attr-defined]


@torch.no_grad()
def test_passes_are_counted() -> None:
    model = loud_speaker()
    for how in (Autoregressive(), *EXACT, BlockDiffusion(threshold=1.0), BlockDiffusion(block=3)):
        decoder, calls = how.decoder(), []
        watched = replace_methods(model, calls)
        decoder.decode(watched, prefilled(model))
        found = decoder.statistics
        assert found[PASSES] == 1 + len(calls)
        assert found[WORDS_PER_PASS] == WORDS / found[PASSES]
        assert 1 <= found[ACCEPTANCE] <= WORDS
    assert Autoregressive().decoder().statistics == {}


def replace_methods(model: OpenVla, calls: list[str]) -> Any:
    """The model, noting each pass."""

    class Watched:
        config, action_logits, shortened = model.config, model.action_logits, model.shortened

        def extend(self, *arguments: Any) -> Any:
            calls.append("extend")
            return model.extend(*arguments)

        def peek(self, *arguments: Any) -> Any:
            calls.append("peek")
            return model.peek(*arguments)

    return Watched()


@torch.no_grad()
def test_one_word_at_a_time_is_one_pass_a_word() -> None:
    model = loud_speaker()
    decoder = BlockDiffusion(threshold=1.0).decoder()
    words = decoder.decode(model, prefilled(model))
    assert decoder.statistics[PASSES] == 1 + WORDS - 1
    assert words.shape == (1, WORDS)
    assert (words != model.config.mask_word).all()


@torch.no_grad()
def test_sub_blocks_are_finished_in_order() -> None:
    """A block in sub-blocks of one hidden word each takes a pass for each word, whatever is certain."""
    model = loud_speaker()
    decoder = BlockDiffusion(threshold=1e-6, sub_block=2).decoder()
    decoder.decode(model, prefilled(model))
    assert decoder.statistics[PASSES] == 1 + WORDS // 2
    all_at_once = BlockDiffusion(threshold=1e-6).decoder()
    all_at_once.decode(model, prefilled(model))
    assert all_at_once.statistics[PASSES] == 2


@torch.no_grad()
def test_a_block_s_first_word_is_the_greedy_one() -> None:
    model = loud_speaker()
    words = BlockDiffusion(block=3).decoder().decode(model, prefilled(model))
    given = model.extend(prefilled(model), words[:, :3])
    following = model.action_logits(given.hidden[:, -1]).argmax(dim=-1) + model.config.first_action_word
    assert torch.equal(words[:, 3], following)
    assert torch.equal(words[:, 0], greedy(model)[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("how", [Jacobi(relax=TOKENS.bins), SelfSpeculative(relax=TOKENS.bins)])
def test_a_tolerance_of_all_bins_takes_every_guess(how: Any) -> None:
    model, decoder = loud_speaker(), how.decoder()
    words = decoder.decode(model, prefilled(model))
    assert decoder.statistics[ACCEPTANCE] == WORDS - 1
    assert (words - model.config.first_action_word < TOKENS.bins).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "block_diffusion", "threshold": 0}, r"threshold must be a number in \(0, 1\], got 0"),
        ({"method": "block_diffusion", "threshold": 1.5}, r"threshold must be a number in \(0, 1\], got 1.5"),
        ({"method": "block_diffusion", "entropy": -1}, "entropy must be a number above 0"),
        ({"method": "block_diffusion", "factor": "x"}, "factor must be a number above 0"),
        ({"method": "block_diffusion", "rule": "luck"}, "rule must be one of confidence, factor, entropy"),
        ({"method": "jacobi", "relax": -1}, "relax must be a whole number of at least 0"),
        ({"method": "self_speculative", "relax": True}, "relax must be a whole number"),
        ({"method": "self_speculative", "redraft": 1}, "redraft must be true or false"),
        ({"method": "jacobi", "cache": "big"}, "cache must be a whole number of tokens"),
    ],
)
def test_wrong_options_are_refused_with_their_range(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        plugs_of("custom", {"decoding": options})


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (
            BlockDiffusion(block=0),
            r"block must be a whole number from 3 to 12 \(a chunk has 4 actions of 3 words\), got 0",
        ),
        (BlockDiffusion(block=15), "from 3 to 12"),
        (BlockDiffusion(block=4), "a multiple of 3, the words of an action, got 4"),
        (BlockDiffusion(block=6, sub_block=7), "sub_block must be a whole number from 2 to 6"),
        (SelfSpeculative(block=13), "from 2 to 12"),
        (Jacobi(block=0), "from 2 to 12"),
        (Autoregressive(cache=12), "cache must be from 13 to"),
        (Autoregressive(cache=100_000), r"cache must be from 13 to \d+ tokens, got 100000"),
    ],
)
def test_blocks_and_caches_that_do_not_fit_a_model_are_refused_with_the_range(how: Any, named: str) -> None:
    assert re.search(named, how.unfit(speaker()) or "")


@pytest.mark.parametrize("how", [BlockDiffusion(), SelfSpeculative()])
def test_a_checkpoint_without_a_mask_word_says_what_it_can_do(how: Any) -> None:
    model = speaker()
    model.config = replace(model.config, mask_word=None)
    assert "no mask word" in (how.unfit(model) or "")
    assert "autoregressive or jacobi" in (how.unfit(model) or "")


def test_a_model_that_denoises_says_no_words() -> None:
    with pytest.raises(InputError, match=r"decoding=jacobi does not apply to this model: it denoises"):
        member("cogact_vit", {**GUIDED, "decoding": "jacobi"})


@torch.no_grad()
def test_a_cache_that_the_prompt_does_not_fit_in_is_refused_with_the_size_it_needs() -> None:
    model = loud_speaker()
    needed = prefilled(model).attended.shape[1] + WORDS
    assert Autoregressive(cache=needed).decoder().decode(model, prefilled(model)).shape == (1, WORDS)
    with pytest.raises(InputError, match=f"cache must be at least {needed}"):
        Autoregressive(cache=needed - 1).decoder().decode(model, prefilled(model))
