"""Lean stages of the models over the shared trunk: CogACT and OpenVLA."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vla.accelerate.lean.decoder import Decoder, Layer, Reduce, sequence
from vla.accelerate.lean.encoder import Encode
from vla.accelerate.lean.vision import tower
from vla.models.trunk import Trunk

Before = Mapping[int, Sequence[Reduce]]


class LeanTrunk:
    """Vision tower, projector and language model of a trunk, over its own weights.

    Args:
        model: the trunk.
        encode, decoder_layer: those of `vla.accelerate.lean`, or compiled ones.
        before: language layer -> what is done to the tokens in front of it.
    """

    def __init__(self, model: Trunk, encode: Encode, decoder_layer: Layer, before: Before) -> None:
        self._model, self._before = model, before
        self._tower = tower(model.vision, encode)
        self.decoder = Decoder(
            model.language.llama, decoder_layer, gemma=False, causal=True, positions=model.config.max_tokens
        )

    def encode(self, images: Tensor) -> Tensor:
        """As `Trunk.encode`."""
        tokens = self._model.projector(self._tower(images.flatten(0, 1)))  # (batch * cameras, tokens, width)
        return tokens.reshape(len(images), -1, tokens.shape[-1])

    def last_hidden(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> Tensor:
        """(batch, language_width) of the last token after the final norm, as `CogAct.prefill`."""
        tokens = sequence(*self._model.sequence(visual, prompt, state))
        read, _ = self.decoder.read(tokens, 1, self._before)
        return self.decoder.norm(read.hidden[:, -1])

    def prefill(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> "Prefilled":
        """What decoding goes on from, as `OpenVla.prefill`."""
        tokens = sequence(*self._model.sequence(visual, prompt, state))
        read, cache = self.decoder.read(tokens, 1, self._before)
        following = tokens.positions[:, -1:] + 1  # (batch, 1)
        return Prefilled(self.decoder.norm(read.hidden), following, read.attended, read.padded, tuple(cache))


class Prefilled(NamedTuple):
    """What decoding goes on from.

    Attributes:
        hidden: (batch, tokens, width) after the final norm, of the newest tokens.
        following: (batch, 1) int64 position of the next token.
        attended: (batch, tokens in the cache) bool, False at padding.
        padded: whether there is any padding.
        cache: keys and values by layer.
    """

    hidden: Tensor
    following: Tensor
    attended: Tensor
    padded: bool
    cache: tuple[tuple[Tensor, Tensor], ...]


class LeanWriter:
    """Writes action words with a lean language model: what a decoding technique is given.

    Args:
        model: an `OpenVla`.
        decoder: over its language model.
    """

    def __init__(self, model: Any, decoder: Decoder) -> None:
        self.config = model.config
        self.logits: Callable[[Tensor], Tensor] = model.logits
        self._embed, self._decoder = model.language.embed, decoder

    def extend(self, prefilled: Prefilled, words: Tensor) -> Prefilled:
        """As `OpenVla.extend`."""
        count = words.shape[1]
        steps = torch.arange(count, device=words.device)
        turn = self._decoder.turn(prefilled.following + steps)
        attended = torch.cat([prefilled.attended, torch.ones_like(words, dtype=torch.bool)], dim=1)
        hidden, cache = self._decoder.go_on(
            self._embed(words), turn, _going_on(attended, count, prefilled.padded), prefilled.cache, count
        )
        following = prefilled.following + count
        return Prefilled(self._decoder.norm(hidden), following, attended, prefilled.padded, tuple(cache))


def _going_on(attended: Tensor, count: int, padded: bool) -> Tensor | None:
    """(batch, 1, count, all) bool: the newest `count` tokens see what came before and themselves; None: all."""
    if count == 1 and not padded:
        return None
    total = attended.shape[1]
    rows = torch.ones(count, total, dtype=torch.bool, device=attended.device).tril(total - count)
    return attended[:, None, None] & rows
