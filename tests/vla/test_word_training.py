"""Objectives of models that say actions in words: streams see what they may, blocks grow, killed runs continue."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.vla.clones import batches, cloning, demonstrations
from tests.vla.small import small_model
from tests.vla.test_training import Killed, finish, kill_after, logged
from tests.vla.word_clones import BLOCKS, TOKENS, loud_speaker, speaker, word_trainer
from vla.api import InputError
from vla.decoding.autoregressive import Autoregressive
from vla.decoding.decoder import PASSES
from vla.decoding.jacobi import Jacobi
from vla.decoding.self_speculative import SelfSpeculative
from vla.models.openvla import OpenVla
from vla.training import blocks as law
from vla.training.batches import Batch
from vla.training.blocks import Blocks, hidden_words, predicted_words
from vla.training.objectives import Words, _positions
from vla.training.schedule import Phase

WORDS = 12


def greedy(model: Any, prefilled: Any) -> Tensor:
    """The words of one chunk, one after the other."""
    return Autoregressive().decoder().decode(model, prefilled)


def batch(count: int = 3) -> Batch:
    return batches(demonstrations(), np.arange(30)).of(np.arange(count) * 7, 32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(model: OpenVla, shown: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings of the prompt, who is attended, positions, words; the first prompt has padding inside."""
    prompts = shown.prompts.clone()
    prompts[0, 2] = model.config.pad_id
    embeddings, attended = model.sequence(model.encode(shown.images), prompts, shown.states)
    words = model.words(shown.actions)
    return embeddings, attended, _positions(attended, words.shape[1]), words


def with_one_mask(model: OpenVla, shown: Batch, hiding: Tensor, block: int, begin: int) -> tuple[Tensor, Tensor]:
    """The same streams by transformers' own Llama under one mask over all pairs of tokens."""
    embeddings, attended, positions, words = parts(model, shown)
    prompt, (count, streams) = attended.shape[1], (words.shape[1], hiding.shape[1])
    assert model.config.mask_word is not None
    noisy = torch.where(hiding, model.config.mask_word, words[:, None])
    said = torch.cat([words, noisy.flatten(1)], dim=1)
    seen = law.visibility(prompt, count, block, streams, begin).repeat(len(words), 1, 1)
    seen[:, :, :prompt] &= attended[:, None]
    bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    hidden = model.language.llama(
        inputs_embeds=torch.cat([embeddings, model.language.embed(said)], dim=1),
        attention_mask=bias,
        position_ids=torch.cat([positions, positions[:, prompt:].repeat(1, streams)], dim=1),
    ).last_hidden_state
    answers = hidden[:, prompt + count :].unflatten(1, (streams, count))
    return hidden[:, prompt - 1 : prompt + count - 1], answers


@torch.no_grad()
@pytest.mark.parametrize("vision_efficient", [True, False])
@pytest.mark.parametrize(("block", "begin"), [(3, 0), (6, 4), (9, 0), (12, 0), (12, 5)])
def test_streams_are_one_pass_under_one_mask(block: int, begin: int, vision_efficient: bool) -> None:
    """Also where the last block is cut: 12 words are a block of 9 and one of 3."""
    model, shown = loud_speaker(), batch()
    how = replace(BLOCKS, vision_efficient=vision_efficient)
    hiding = hidden_words(3, WORDS, block, how, generator(), begin)
    got = Words(0.0, how)._streams(model, *parts(model, shown), hiding, block, begin)
    for each, expected in zip(got, with_one_mask(model, shown, hiding, block, begin), strict=True):
        torch.testing.assert_close(each, expected, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_the_clean_stream_is_what_decoding_reads() -> None:
    model, shown = loud_speaker(), batch()
    prefilled = model.prefill(model.encode(shown.images), shown.prompts, shown.states)
    words = model.words(shown.actions)
    following = model.extend(prefilled, words[:, :-1]).hidden
    embeddings, attended = model.sequence(model.encode(shown.images), shown.prompts, shown.states)
    nothing = torch.zeros(3, 0, WORDS, dtype=torch.bool)
    streams = Words(0.0)._streams(model, embeddings, attended, _positions(attended, WORDS), words, nothing, 1)
    torch.testing.assert_close(streams[0][:, 1:], following, atol=1e-5, rtol=1e-4)


def test_losses_and_gradients_do_not_depend_on_where_visual_tokens_stand() -> None:
    found = []
    for efficient in (True, False):
        model = loud_speaker()
        lesson = Words(0.0, replace(BLOCKS, vision_efficient=efficient)).lesson(model, batch(), generator(), 0.9)
        lesson.loss.backward()
        found.append((lesson.loss.detach(), model.projector[0].weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_noisy_stream_never_sees_what_it_has_to_say() -> None:
    """Other words in its own and later blocks change nothing that is predicted there, unless they are shown."""
    model, shown = loud_speaker(), batch()
    hiding = torch.ones(3, 1, WORDS, dtype=torch.bool)
    hiding[..., ::6] = False
    embeddings, attended, positions, words = parts(model, shown)
    other = words.clone()
    other[:, 7:] = words[:, 7:].flip(0).roll(1, 1)
    learner = Words(0.0, BLOCKS)
    with torch.no_grad():
        one, same = (
            learner._streams(model, embeddings, attended, positions, each, hiding, 6)[1] for each in (words, other)
        )
    torch.testing.assert_close(one, same)


@pytest.mark.parametrize(("words", "block", "begin"), [(12, 3, 0), (12, 5, 2), (56, 14, 13), (7, 7, 0)])
def test_each_word_but_a_block_s_first_is_hidden_in_one_of_two_streams(words: int, block: int, begin: int) -> None:
    hiding = hidden_words(50, words, block, BLOCKS, generator(), begin)
    first = (torch.arange(words) + begin) % block == 0
    first[0] = True
    assert not hiding[..., first].any()
    assert (hiding.sum(dim=1) == 1)[:, ~first].all()
    assert predicted_words(hiding).sum() == hiding.sum()
    alone = hidden_words(50, words, block, replace(BLOCKS, complementary=False), generator(), begin)
    assert torch.equal(alone[:, 0], hiding[:, 0])


def test_every_share_of_a_block_is_hidden_at_times() -> None:
    hiding = hidden_words(2000, 12, 12, replace(BLOCKS, drafts=0.0), generator())[:, 0, 1:]
    shares = hiding.float().mean(dim=1)
    assert shares.min() == 0
    assert 0.4 < float(shares.mean()) < 0.6
    drafts = hidden_words(2000, 12, 12, replace(BLOCKS, drafts=1.0), generator())[:, 0, 1:]
    assert drafts.all()


def test_blocks_grow_with_the_run_and_end_at_their_size() -> None:
    assert [replace(BLOCKS, actions=8).at(progress) for progress in (0, 0.2, 0.25, 0.5, 0.74, 0.99, 1.0)] == [
        1, 1, 2, 4, 4, 8, 8,
    ]  # fmt: skip
    assert replace(BLOCKS, actions=6).sizes() == [1, 2, 4, 6]
    assert replace(BLOCKS, anneal=False).at(0.0) == 4


def test_blocks_begin_anywhere_in_half_of_the_steps() -> None:
    random = generator()
    begins = [BLOCKS.begin(6, random) for _ in range(2000)]
    assert set(begins) == set(range(6))
    assert 0.5 < begins.count(0) / len(begins) < 0.67
    assert {replace(BLOCKS, shifted=False).begin(6, random) for _ in range(50)} == {0}


def test_blocks_really_grow_in_a_run(tmp_path: Path) -> None:
    finish(word_trainer(tmp_path, cloning(), Words(0.0, BLOCKS)))
    assert [line["block"] for line in logged(tmp_path)] == [3, 3, 3, 6, 6, 6, 12, 12, 12]


@pytest.mark.parametrize("objective", [Words(0.0), Words(1.0, BLOCKS)])
@pytest.mark.parametrize("killed_at", [1, 5])
def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path, objective: Words, killed_at: int) -> None:
    undisturbed = finish(word_trainer(tmp_path / "a", cloning(minutes=0), objective))
    with pytest.raises(Killed):
        word_trainer(tmp_path / "b", cloning(minutes=0), objective).run(kill_after(killed_at), lambda _: None)
    again = word_trainer(tmp_path / "b", cloning(minutes=0), objective)
    again.resume()
    resumed = finish(again)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in undisturbed.items())
    assert logged(tmp_path / "a") == logged(tmp_path / "b")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenVla, list[dict[str, Any]]]:
    """A model after a hundred steps, and their log."""
    out = tmp_path_factory.mktemp("taught")
    run = word_trainer(out, cloning((Phase(32, 1600, 16, 2e-3, 0.0),), bf16=False), Words(0.0, BLOCKS))
    finish(run)
    assert isinstance(run.average, OpenVla)
    return run.average, logged(out)


def test_the_speaker_imitates_what_it_was_shown(taught: tuple[OpenVla, list[dict[str, Any]]]) -> None:
    losses = [line["noisy_loss"] + line["clean_loss"] for line in taught[1]]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


@torch.inference_mode()
@pytest.mark.parametrize("how", [Jacobi(), Jacobi(block=5), SelfSpeculative(), SelfSpeculative(block=6)])
def test_a_taught_speaker_is_decoded_exactly_in_fewer_passes(
    taught: tuple[OpenVla, list[dict[str, Any]]], how: Jacobi | SelfSpeculative
) -> None:
    model, _ = taught
    decoder, passes = how.decoder(), []
    for number in range(6):
        shown = batches(demonstrations(), np.arange(30)).of(np.array([number * 5]), 32)
        visual = model.encode(shown.images)
        words = decoder.decode(model, model.prefill(visual, shown.prompts, shown.states))
        assert torch.equal(words, greedy(model, model.prefill(visual, shown.prompts, shown.states)))
        passes.append(decoder.statistics[PASSES])
    assert np.mean(passes) < WORDS


def test_a_blind_stage_reads_no_image() -> None:
    blind = Words(0.0, replace(BLOCKS, blind=0.5))
    model, shown = loud_speaker(), batch()
    dark = replace(shown, images=torch.zeros_like(shown.images))
    losses = [blind.lesson(model, each, generator(), 0.4).loss.item() for each in (shown, dark)]
    assert losses[0] == losses[1]
    assert blind.lesson(model, shown, generator(), 0.6).loss != blind.lesson(model, dark, generator(), 0.6).loss


def test_smoothing_forgives_neighbours() -> None:
    """A model that is sure of the neighbouring bin loses less, one that is sure of a far one does not."""
    model, words = speaker(), torch.tensor([[model_word(5)]])
    assert model.language.lm_head is not None
    rows = model.language.lm_head.weight.detach()[model_word(0) : model_word(TOKENS.bins)]
    losses = {}
    for offset in (1, 6):
        sure = torch.zeros(TOKENS.bins).index_fill(0, torch.tensor(5 + offset), 8.0)
        hidden = torch.linalg.lstsq(rows, sure[:, None]).solution[None, None, :, 0]
        losses[offset] = [Words(smoothing)._loss(model, hidden, words).item() for smoothing in (0.0, 1.0)]
    assert losses[1][1] < losses[1][0] - 1
    assert losses[6][1] == pytest.approx(losses[6][0], abs=1)


@pytest.mark.parametrize("rounding", [1, 2, 5])
def test_rounded_answers_lie_around_action_0_and_at_most_half_a_step_away(rounding: int) -> None:
    model, actions = speaker(), torch.linspace(-1, 1, WORDS).reshape(1, -1, 3)
    exact = model.words(actions)
    rounded = Words(0.0, rounding=rounding)._rounded(model, exact)
    middle = model.words(torch.zeros_like(actions))
    inside = (rounded > model.config.first_action_word) & (rounded < model.config.action_words - 1)
    assert torch.equal(rounded[inside] % rounding, middle[inside] % rounding)
    assert (rounded - exact).abs().max() <= rounding // 2
    assert (rounded == exact).all() == (rounding == 1)
    assert torch.equal(Words(0.0, rounding=rounding)._rounded(model, middle), middle)


def model_word(number: int) -> int:
    return speaker().config.first_action_word + number


def test_the_trunk_of_a_diffusion_model_is_taken_over() -> None:
    given, begun = small_model(), speaker()
    known = given.state_dict()
    for name, tensor in begun.state_dict().items():
        if name in known:
            assert torch.equal(tensor[: len(known[name])], known[name]), name
    assert begun.config.prompt_suffix == given.config.ending
    assert begun.config.vocabulary == given.config.vocabulary + TOKENS.bins + 1


def test_neighbouring_bins_begin_alike() -> None:
    model = speaker()
    rows = model.language.embed(torch.arange(model.config.first_action_word, model.config.action_words)).detach()
    near = torch.nn.functional.cosine_similarity(rows[1:], rows[:-1]).mean()
    far = torch.nn.functional.cosine_similarity(rows[8:], rows[:-8]).mean()
    assert near > far + 0.2


def test_actions_survive_their_words() -> None:
    model = speaker()
    actions = torch.rand(5, 4, 3, generator=generator()) * 2 - 1
    said = model.words(actions)
    assert said.shape == (5, WORDS)
    assert (model.actions(said) - actions).abs().max() <= 1 / (TOKENS.bins - 1) + 1e-6
    assert torch.equal(model.words(model.actions(said)), said.clamp(min=model.config.first_action_word + 1))
    assert Autoregressive().decoder().decode(
        model, model.prefill(torch.zeros(1, 4, 32), torch.tensor([[5]]), torch.zeros(1, 2))
    ).shape == (1, 12)


@pytest.mark.parametrize(
    "change",
    [{"actions": 0}, {"actions": 1.5}, {"anneal": 1}, {"drafts": 1.1}, {"noisy_weight": -1}, {"blind": 1.0}],
)
def test_wrong_options_of_blocks_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"blocks.{next(iter(change))}"):
        Blocks(**{**BLOCKS.__dict__, **change})
