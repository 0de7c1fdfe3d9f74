"""What all decoders share: a pen that reads words over a key-value cache and counts, and statistics of an answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vla.api import InputError

PASSES, WORDS_PER_PASS, ACCEPTANCE = "passes", "words_per_pass", "acceptance_length"


class Pen:
    """Reads words with a language model, keeps its cache, and counts how often the model ran.

    Args:
        model: a `vla.models.openvla.OpenVla`, or what has its `config`, `action_logits`, `extend`, `peek` and
            `shortened`.
        prefilled: of `model.prefill`; used up.

    Attributes:
        mask: id of the mask word; None: the model has none.
        numbers: in an action.
        middle: id of the action word in the middle of the range.
        passes: of the language model, the one over the prompt included.
        sizes: words that each pass over words read.
        accepted: words that each pass made known.
    """

    def __init__(self, model: Any, prefilled: Any) -> None:
        self._model, self._prefilled = model, prefilled
        config = model.config
        self._first, self.mask, self.numbers = config.first_action_word, config.mask_word, config.action_dim
        self.middle = config.first_action_word + config.bins // 2
        self.passes = 1
        self.sizes: list[int] = []
        self.accepted: list[int] = []

    def following(self) -> Tensor:
        """(batch, 1) int64: the likeliest action word after the newest one that was read."""
        return self.likeliest(self._model.action_logits(self._prefilled.hidden[:, -1:]))

    def read(self, words: Tensor) -> Tensor:
        """Read (batch, n) int64 words and keep them; (batch, n, bins) logits of the word after each."""
        self._prefilled = self._model.extend(self._prefilled, words)
        self._count(words)
        return self._model.action_logits(self._prefilled.hidden)

    def peek(self, words: Tensor) -> Tensor:
        """As `read`, but the words see each other in both directions, and are forgotten."""
        self._count(words)
        return self._model.action_logits(self._model.peek(self._prefilled, words))

    def drop(self, count: int) -> None:
        """Forget the newest words that were read."""
        if count:
            self._prefilled = self._model.shortened(self._prefilled, count)

    def _count(self, words: Tensor) -> None:
        self.passes += 1
        self.sizes.append(words.shape[1])

    def likeliest(self, logits: Tensor) -> Tensor:
        """(…, bins) -> (…,) int64 ids of action words; of equals the lowest."""
        return logits.argmax(dim=-1) + self._first


class Decoder:
    """Turns what `prefill` gave into the words of a chunk, for one policy.

    Args:
        write: (pen, number of words) -> (batch, words) int64.
        cache: most tokens of prompt and chunk together; None: as many as the model can read.
        remembers: whether a session's answers depend on its earlier ones.

    Attributes:
        statistics: of the latest answer: passes of the language model, words per pass (1 if each pass gave one), and
            the mean number of words that a pass over words made known.
        sizes: words that each of its passes over words read.
    """

    def __init__(self, write: Callable[[Pen, int], Tensor], cache: int | None = None, remembers: bool = False) -> None:
        self._write, self._cache, self.remembers = write, cache, remembers
        self.statistics: dict[str, float] = {}
        self.sizes: list[int] = []

    def acting(self, model: Any, writer: Any) -> Callable[[Any, Tensor], Tensor]:
        """The stage `act`.

        Args:
            model: says what words mean.
            writer: reads words.
        """
        return lambda prefilled, noise: model.actions(self.decode(writer, prefilled))

    def decode(self, model: Any, prefilled: Any) -> Tensor:
        """The words of one chunk, (batch, words) int64.

        Args:
            model: reads words, see `Pen`.
            prefilled: of `model.prefill`; used up.

        Raises:
            InputError: if the cache is too small for the prompt and the words.
        """
        count = model.config.words
        self._check_room(prefilled.attended.shape[1], count)
        pen = Pen(model, prefilled)
        words = self._write(pen, count)
        pieces = pen.accepted or [count / pen.passes]
        self.sizes = pen.sizes
        self.statistics = {
            PASSES: float(pen.passes),
            WORDS_PER_PASS: count / pen.passes,
            ACCEPTANCE: sum(pieces) / len(pieces),
        }
        return words

    def begin(self, frames: Sequence[Any]) -> None:
        """Say which sessions and steps (`vla.accelerate.stages.Frame`) the next call of `decode` is for."""

    def forget(self, session: str) -> None:
        """Forget a session; nothing happens if it is not known."""

    def _check_room(self, prompt: int, words: int) -> None:
        if self._cache is not None and self._cache < prompt + words:
            raise InputError(
                f"decoding: cache={self._cache} tokens is too small; this prompt takes {prompt} and the chunk {words}, "
                f"so cache must be at least {prompt + words}"
            )


@dataclass(frozen=True)
class Relaxed:
    """When a drafted word counts as the likeliest one.

    Attributes:
        bins: how far it may be off; 0: not at all, so that decoding is exact.
    """

    bins: int = 0

    def __call__(self, drafted: Tensor, likeliest: Tensor) -> Tensor:
        """(batch, n) int64 both -> (batch, n) bool."""
        return (drafted - likeliest).abs() <= self.bins


def verified(pen: Pen, newest: Tensor, draft: Tensor, accepts: Relaxed) -> tuple[Tensor, Tensor]:
    """Words of a draft that are what the model says word by word, and one word more.

    Rows of a batch go on together, by as many words as all of them may.

    Args:
        pen: has read everything before `newest`; afterwards everything before the last word that is returned.
        newest: (batch, 1) int64 the last word that is known.
        draft: (batch, n) int64 guesses for those that follow; n may be 0.
        accepts: which of them pass.

    Returns:
        (batch, from 1 to n + 1) int64 words; (batch, the rest of n + 1) what the model says after wrong words, a guess.
    """
    said = pen.likeliest(pen.read(torch.cat([newest, draft], dim=1)))  # (batch, n + 1)
    right = accepts(draft, said[:, : draft.shape[1]]).long().cumprod(dim=1)  # (batch, n)
    count = int(right.sum(dim=1).min())  # drafted words that pass in all rows
    pen.drop(draft.shape[1] - count)
    pen.accepted.append(count + 1)
    return torch.cat([draft[:, :count], said[:, count : count + 1]], dim=1), said[:, count + 1 :]
