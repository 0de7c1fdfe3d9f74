"""FAST-style action tokens: a chunk's frequencies, rounded, and their commonest runs as one token (arXiv 2501.09747).

Neighbouring actions are alike, so after a discrete cosine transform over time most coefficients round to zero, and byte
pair encoding makes long runs of zeros short: a smooth chunk takes far fewer tokens than one for each number.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, trainers

from vla.api import InputError

_FIRST_LETTER = 0x100  # letters from here on stand for rounded coefficients: none of them is white space
_MOST_LETTERS = 0xD800 - _FIRST_LETTER  # up to the first code point that is no character


class FastTokenizer:
    """Chunks to tokens and back.

    Args:
        words: byte pair encoding over letters that stand for rounded coefficients.
        lowest: rounded coefficient of the first letter.
        letters: how many there are.
        scale: coefficients are multiplied by it before they are rounded.
        horizon, numbers: of a chunk.
    """

    def __init__(
        self, words: tokenizers.Tokenizer, lowest: int, letters: int, scale: float, horizon: int, numbers: int
    ) -> None:
        self._words, self._lowest, self._letters = words, lowest, letters
        self._scale, self._shape = scale, (horizon, numbers)
        self._transform = cosines(horizon)

    @classmethod
    def fit(cls, chunks: NDArray[np.float32], scale: float = 10.0, vocabulary: int = 1024) -> "FastTokenizer":
        """Learn which runs of coefficients are common.

        Args:
            chunks: (chunks, horizon, numbers) normalised, about [-1, 1].
            scale: precision; an error of 1 / (2 * scale) in each coefficient remains.
            vocabulary: tokens at most.

        Raises:
            InputError: if there are no chunks, `scale` is not above 0, or more letters than tokens are needed.
        """
        if chunks.ndim != 3 or 0 in chunks.shape or not scale > 0:
            raise InputError(f"needs chunks (n, horizon, numbers) and a scale above 0, got {chunks.shape} and {scale}")
        horizon, numbers = chunks.shape[1:]
        rounded = _rounded(chunks, cosines(horizon), scale)
        lowest, letters = int(rounded.min()), int(np.ptp(rounded)) + 1
        if letters > min(vocabulary, _MOST_LETTERS):
            raise InputError(
                f"{letters} different coefficients need a vocabulary of at least as many, got {vocabulary}; "
                "or give a smaller scale"
            )
        words = tokenizers.Tokenizer(models.BPE())
        alphabet = [chr(_FIRST_LETTER + letter) for letter in range(letters)]
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False, max_token_length=horizon * numbers
        )
        words.train_from_iterator(_spelled(rounded, lowest), trainer)
        return cls(words, lowest, letters, scale, horizon, numbers)

    def encode(self, chunks: NDArray[np.float32]) -> list[list[int]]:
        """Tokens of (chunks, horizon, numbers); coefficients beyond those that were fitted count as the nearest."""
        rounded = _rounded(chunks, self._transform, self._scale)
        known = rounded.clip(self._lowest, self._lowest + self._letters - 1)
        return [encoding.ids for encoding in self._words.encode_batch(_spelled(known, self._lowest))]

    def decode(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The inverse of `encode` up to rounding, (chunks, horizon, numbers).

        Raises:
            InputError: if tokens do not spell exactly one chunk.
        """
        horizon, numbers = self._shape
        texts = ["".join(self._words.id_to_token(token) or "" for token in each) for each in tokens]
        wrong = [len(text) for text in texts if len(text) != horizon * numbers]
        if wrong:
            raise InputError(f"tokens must spell {horizon * numbers} coefficients, these spell {wrong[0]}")
        letters = np.array([[ord(letter) for letter in text] for text in texts]) - _FIRST_LETTER + self._lowest
        coefficients = letters.reshape(-1, horizon, numbers) / self._scale
        return np.einsum("fh,cfa->cha", self._transform, coefficients).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write everything as one JSON file."""
        about = {"lowest": self._lowest, "letters": self._letters, "scale": self._scale, "shape": self._shape}
        path.write_text(json.dumps({**about, "words": json.loads(self._words.to_str())}))

    @classmethod
    def load(cls, path: Path) -> "FastTokenizer":
        """The inverse of `save`.

        Raises:
            InputError: if the file is missing or of another form.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            words = tokenizers.Tokenizer.from_str(json.dumps(values["words"]))
            return cls(words, values["lowest"], values["letters"], values["scale"], *values["shape"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read action tokens from {path}: {error}") from error


def cosines(count: int) -> NDArray[np.float64]:
    """The orthonormal discrete cosine transform (type II), (frequencies, times): its transpose is its inverse."""
    frequency, time = np.arange(count)[:, None], np.arange(count)
    waves = np.cos(np.pi / count * (time + 0.5) * frequency) * np.sqrt(2 / count)
    waves[0] /= np.sqrt(2)
    return waves


def _rounded(chunks: NDArray[np.float32], transform: NDArray[np.float64], scale: float) -> NDArray[np.int64]:
    """(chunks, frequencies, numbers), low frequencies first."""
    return np.rint(scale * np.einsum("fh,cha->cfa", transform, chunks)).astype(np.int64)


def _spelled(rounded: NDArray[np.int64], lowest: int) -> list[str]:
    """A text for each chunk: low frequencies of all numbers come first."""
    flat = rounded.reshape(len(rounded), -1) - lowest + _FIRST_LETTER
    return ["".join(map(chr, row)) for row in flat.tolist()]
