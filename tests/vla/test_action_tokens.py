"""FAST tokens: a round trip loses only what rounding loses, smooth chunks are short, nonsense is refused."""

from pathlib import Path

import numpy as np
import pytest

from vla.action_tokens import FastTokenizer, cosines
from vla.api import InputError


def smooth(count: int = 300, seed: int = 0) -> np.ndarray:
    """(count, 8, 3) straight lines with a little noise, and a command."""
    random = np.random.default_rng(seed)
    ends = random.uniform(-0.7, 0.7, (2, count, 1, 3))
    lines = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, 8)[:, None]
    lines[..., 2] = np.sign(ends[0, ..., 2])
    return (lines + random.normal(0, 0.01, lines.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    return FastTokenizer.fit(smooth(), scale=20.0, vocabulary=512)


def test_cosines_are_orthonormal() -> None:
    np.testing.assert_allclose(cosines(8) @ cosines(8).T, np.eye(8), atol=1e-12)


def test_a_round_trip_loses_only_what_rounding_loses(tokenizer: FastTokenizer) -> None:
    chunks = smooth(seed=1).clip(-0.9, 0.9)
    heard = tokenizer.decode(tokenizer.encode(chunks))
    assert heard.shape == chunks.shape
    per_chunk = np.sqrt(((heard - chunks) ** 2).sum(axis=1))  # the transform keeps lengths
    assert per_chunk.max() <= np.sqrt(8) / (2 * 20) + 1e-6


def test_smooth_chunks_take_fewer_tokens_than_numbers(tokenizer: FastTokenizer) -> None:
    lengths = [len(tokens) for tokens in tokenizer.encode(smooth(seed=1))]
    assert np.mean(lengths) < 24 / 1.5


def test_a_higher_scale_is_more_precise() -> None:
    errors = []
    for scale in (5.0, 20.0, 80.0):
        fitted = FastTokenizer.fit(smooth(), scale, 1024)
        errors.append(np.abs(fitted.decode(fitted.encode(smooth())) - smooth()).mean())
    assert errors == sorted(errors, reverse=True)


def test_what_was_saved_says_the_same(tokenizer: FastTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "words.json")
    again = FastTokenizer.load(tmp_path / "words.json")
    tokens = tokenizer.encode(smooth(seed=2))
    assert again.encode(smooth(seed=2)) == tokens
    np.testing.assert_array_equal(again.decode(tokens), tokenizer.decode(tokens))


def test_tokens_that_spell_no_chunk_are_refused(tokenizer: FastTokenizer) -> None:
    tokens = tokenizer.encode(smooth(1))[0]
    with pytest.raises(InputError, match="must spell 24 coefficients"):
        tokenizer.decode([tokens[:-1]])


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="scale above 0"):
        FastTokenizer.fit(smooth(), scale=0)
    with pytest.raises(InputError, match="different coefficients need a vocabulary"):
        FastTokenizer.fit(smooth(), scale=1000.0, vocabulary=64)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text("{}")
    with pytest.raises(InputError, match="cannot read action tokens"):
        FastTokenizer.load(tmp_path / "words.json")
