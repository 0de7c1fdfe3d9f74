"""OpenVLA's words: their ids, the centres of their bins, and greedy decoding with a cache."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.vla.test_families import CPU, OPENVLA
from vla.checkpoints.weights import empty, randomise
from vla.decoding.autoregressive import Autoregressive
from vla.models import openvla
from vla.models.openvla import OpenVla, OpenVlaConfig

LLAMA = OpenVlaConfig(**{**OPENVLA.to_dict(), "vocabulary": 32064, "action_words": 32000})


def greedy(model: Any, prefilled: Any) -> Tensor:
    """The words of one chunk, one after the other."""
    return Autoregressive().decoder().decode(model, prefilled)


@pytest.fixture(scope="module")
def model() -> OpenVla:
    made = randomise(empty(openvla.FAMILY, OPENVLA), CPU, torch.float32)
    assert isinstance(made, OpenVla)
    return made


def meaning(ids: list[int]) -> np.ndarray:
    made = empty(openvla.FAMILY, LLAMA)
    assert isinstance(made, OpenVla)
    filled = ids + [0] * (-len(ids) % LLAMA.action_dim)
    return made.actions(torch.tensor([filled])).flatten().numpy()[: len(ids)]


def test_ids_mean_the_centres_of_equal_bins_from_the_highest_id_down() -> None:
    """OpenVLA's ActionTokenizer: 256 edges over [-1, 1], id = 32000 - np.digitize(action)."""
    edges = np.linspace(-1, 1, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    np.testing.assert_allclose(meaning(list(range(31999, 31744, -1))), centres, atol=1e-7)


def test_the_lowest_of_the_256_ids_shares_the_last_bin() -> None:
    assert meaning([31744]) == meaning([31745]) == pytest.approx(1 - 1 / 255)


def test_other_words_count_as_the_nearest_action_word() -> None:
    np.testing.assert_array_equal(meaning([0, 2, 31743, 32000, 32063]), meaning([31744, 31744, 31744, 31999, 31999]))


@pytest.mark.parametrize("action", [-1.0, -0.5, -0.001, 0.0, 0.3, 0.999, 1.0])
def test_an_action_survives_its_word_to_within_half_a_bin(action: float) -> None:
    word = 32000 - int(np.digitize(action, np.linspace(-1, 1, 256)))
    assert 31744 <= word <= 31999
    assert abs(meaning([word])[0] - action) <= 1 / 255 + 1e-6


def without_cache(model: OpenVla, visual: Tensor, prompt: Tensor) -> Tensor:
    """The whole sequence anew for every word."""
    embeddings, attended = model.sequence(visual, prompt, None)
    words = []
    for _ in range(model.config.words):
        logits = model.logits(model.language(embeddings, attended)[:, -1])
        allowed = logits[:, OPENVLA.first_action_word : OPENVLA.action_words]
        words.append(OPENVLA.first_action_word + allowed.argmax(dim=-1, keepdim=True))
        embeddings = torch.cat([embeddings, model.language.embed(words[-1])], dim=1)
        attended = torch.cat([attended, torch.ones_like(words[-1], dtype=torch.bool)], dim=1)
    return torch.cat(words, dim=1)


@torch.no_grad()
def test_the_cache_changes_no_word(model: OpenVla) -> None:
    visual = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    pad = model.config.pad_id
    prompt = torch.tensor([[7, 8, 9, 10], [pad, 11, 12, pad]])
    words = greedy(model, model.prefill(visual, prompt, None))
    assert words.shape == (2, 7)
    assert torch.equal(words, without_cache(model, visual, prompt))


@torch.no_grad()
def test_padding_changes_no_word(model: OpenVla) -> None:
    visual, pad = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(1)), model.config.pad_id
    alone = greedy(model, model.prefill(visual, torch.tensor([[7, 8, 9]]), None))
    assert torch.equal(
        greedy(model, model.prefill(visual, torch.tensor([[pad, 7, 8, pad, 9]]), None)),
        alone,
    )


@torch.no_grad()
def test_several_words_at_once_are_read_as_one_after_the_other(model: OpenVla) -> None:
    visual, prompt = torch.randn(1, 4, 32), torch.tensor([[7, 8]])
    words = torch.tensor([[20, 21, 22]])
    together = model.extend(model.prefill(visual, prompt, None), words).hidden
    one_by_one = model.prefill(visual, prompt, None)
    for i in range(3):
        one_by_one = model.extend(one_by_one, words[:, i : i + 1])
        torch.testing.assert_close(one_by_one.hidden[:, 0], together[:, i], atol=1e-5, rtol=1e-4)
