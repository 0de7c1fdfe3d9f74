"""Lean stages of the models over the shared trunk: CogACT and OpenVLA."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.lean.decoder import Decoder, KeyValues, ReadPrefix, Tokens, mask_of
from vla.accelerate.lean.encoder import Encode
from vla.accelerate.lean.layer import Layer
from vla.accelerate.lean.vision import Projected, Tower, Watched, tower
from vla.accelerate.reduction.calls import Features
from vla.accelerate.reduction.layout import Visual, layout_of
from vla.accelerate.reduction.plan import Plan
from vla.accelerate.stages import Memory, TokenReduction
from vla.models.trunk import Trunk

_FIRST = 1  # token before the visual ones


class LeanTrunk:
    """Vision tower, projector and language model of a trunk, over its own weights.

    Args:
        model: the trunk.
        encode, decoder_layer: those of `vla.accelerate.lean`, or compiled ones.
        reductions: the recipe's token techniques.

    Attributes:
        tower: the vision tower, or what reads images instead.
        decoder: the language model.

    Raises:
        InputError: if one of them does not fit the model.
    """

    def __init__(
        self, model: Trunk, encode: Encode, decoder_layer: Layer, reductions: Sequence[TokenReduction] = ()
    ) -> None:
        self._model, self._plan = model, Plan(reductions, layout_of(model))
        self.tower: Any = tower(model.vision, encode)
        self.decoder = Decoder(
            model.language.llama, decoder_layer, gemma=False, causal=True, positions=model.config.max_tokens
        )
        self._projector: Callable[[Tensor], Tensor] = model.projector
        self._remembering: ReadPrefix | None = None

    def remember(self, memory: Memory) -> None:
        """Have images and sequences read by what remembers those before."""
        self.tower, self._projector = remembered(memory, self.tower, self._projector, self._plan)
        self._remembering = memory.reading(self.decoder, _FIRST)

    def encode(self, images: Tensor) -> Tensor | Visual:
        """As `Trunk.encode`; or fewer tokens, with what is known of them."""
        return encoded(images, self.tower, self._projector, self._plan)

    def last_hidden(self, visual: Tensor | Visual, prompt: Tensor, state: Tensor | None) -> Tensor:
        """(batch, language_width) of the last token after the final norm, as `CogAct.prefill`."""
        read, _ = self._read(visual, prompt, state)
        return self.decoder.norm(read.hidden[:, -1])

    def prefill(self, visual: Tensor | Visual, prompt: Tensor, state: Tensor | None) -> "Prefilled":
        """What decoding goes on from, as `OpenVla.prefill`."""
        read, cache = self._read(visual, prompt, state)
        following = read.positions.flatten(2)[:, -1:, 0] if read.positions.ndim > 2 else read.positions[:, -1:]
        hidden = self.decoder.norm(read.hidden)
        return Prefilled(hidden, following + 1, read.attended, read.padded, tuple(cache), read.bias)

    def _read(self, visual: Tensor | Visual, prompt: Tensor, state: Tensor | None) -> tuple[Tokens, KeyValues]:
        sequence = self._model.sequence(self._plan.tokens_of(visual), prompt, state)
        words = (int(self._model.state_projector is not None), len(self._model.config.ending))
        tokens = self._plan.begin(visual, *sequence, start=_FIRST, words=words)
        return (self._remembering or self.decoder.read)(tokens, 1, self._plan.before)


def remembered(
    memory: Memory, tower: Tower, projector: Callable[[Tensor], Tensor], plan: Plan
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Tower and projector with a memory around both; around the tower alone where its own tokens are needed too."""
    if plan.of_encoder:
        return memory.around(tower), projector
    return memory.around(Projected(tower, projector)), lambda tokens: tokens


def encoded(images: Tensor, tower: Tower, projector: Callable[[Tensor], Tensor], plan: Plan) -> Tensor | Visual:
    """The stage `encode`: images (batch, cameras, channels, height, width) to visual tokens.

    Returns:
        (batch, cameras * tokens, language_width), camera by camera, each row by row; with what is known of the tokens
        if they are not all patches.
    """
    batch, cameras = images.shape[:2]
    if plan.merger is None and not plan.statistics:
        features = tower(images.flatten(0, 1))  # (batch * cameras, tokens, vision_width)
        if not plan.of_encoder:
            tokens = projector(features)
            return tokens.reshape(batch, -1, tokens.shape[-1])
        every = torch.arange(features.shape[1], device=features.device).expand(len(features), -1)
        found = Features(features, every, None, None, None)
    else:
        found, _ = tower.watched(images.flatten(0, 1), Watched(plan.merger, plan.statistics))
    return plan.visual(found, projector, cameras)


class Prefilled(NamedTuple):
    """What decoding goes on from.

    Attributes:
        hidden: (batch, tokens, width) after the final norm, of the newest tokens.
        following: (batch, 1) int64 position of the next token.
        attended: (batch, tokens in the cache) bool, False at padding.
        padded: whether there is any padding.
        cache: keys and values by layer.
        bias: (batch, tokens in the cache), as `vla.accelerate.lean.decoder.Tokens` has it.
    """

    hidden: Tensor
    following: Tensor
    attended: Tensor
    padded: bool
    cache: tuple[tuple[Tensor, Tensor], ...]
    bias: Tensor | None = None


class EveryWord:
    """A model's config as decoders read it when all words of the vocabulary are compared: bins begin at word 0."""

    first_action_word = 0

    def __init__(self, config: Any) -> None:
        self._config = config
        self.bins = 2 * config.first_action_word + config.bins  # so that the middle stays that of the action words

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)


class LeanWriter:
    """Writes action words with a lean language model: what a decoding technique is given.

    Args:
        model: an `OpenVla`.
        decoder: over its language model.
        every_word: whether the likeliest of all words is said, as published OpenVLA does, instead of the likeliest
            action word; a model with rows of its own for action words never says others.
    """

    def __init__(self, model: Any, decoder: Decoder, every_word: bool = False) -> None:
        every = every_word and model.config.text_words is None
        self.config: Any = EveryWord(model.config) if every else model.config
        self.action_logits: Callable[[Tensor], Tensor] = model.logits if every else model.action_logits
        self._embed, self._decoder = model.language.embed, decoder

    def extend(self, prefilled: Prefilled, words: Tensor) -> Prefilled:
        """As `OpenVla.extend`."""
        attended, bias = _followed(prefilled, words)
        plain = not prefilled.padded and bias is None and words.shape[1] == 1  # which sees everything
        hidden, cache = self._read(prefilled, words, None if plain else mask_of(attended, bias, words.shape[1]))
        following = prefilled.following + words.shape[1]
        return Prefilled(hidden, following, attended, prefilled.padded, tuple(cache), bias)

    def peek(self, prefilled: Prefilled, words: Tensor) -> Tensor:
        """As `OpenVla.peek`."""
        plain = not prefilled.padded and prefilled.bias is None
        hidden, _ = self._read(prefilled, words, None if plain else mask_of(*_followed(prefilled, words)))
        return hidden

    def shortened(self, prefilled: Prefilled, count: int) -> Prefilled:
        """As `OpenVla.shortened`."""
        cache = tuple((keys[:, :, :-count], values[:, :, :-count]) for keys, values in prefilled.cache)
        attended, following = prefilled.attended[:, :-count], prefilled.following - count
        bias = None if prefilled.bias is None else prefilled.bias[:, :-count]
        return Prefilled(prefilled.hidden[:, :-count], following, attended, prefilled.padded, cache, bias)

    def _read(self, prefilled: Prefilled, words: Tensor, mask: Tensor | None) -> tuple[Tensor, KeyValues]:
        """Hidden states after the final norm; keys and values of everything by layer."""
        turn = self._decoder.turn(prefilled.following + torch.arange(words.shape[1], device=words.device))
        hidden, cache = self._decoder.go_on(self._embed(words), turn, mask, prefilled.cache, words.shape[1])
        return self._decoder.norm(hidden), cache


def _followed(prefilled: Prefilled, words: Tensor) -> tuple[Tensor, Tensor | None]:
    """`attended` and `bias` of all tokens and these."""
    attended = torch.cat([prefilled.attended, torch.ones_like(words, dtype=torch.bool)], dim=1)
    return attended, None if prefilled.bias is None else functional.pad(prefilled.bias, (0, words.shape[1]))
