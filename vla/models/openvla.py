"""OpenVLA: vision tower -> projector -> language model -> one word for each number of an action (arXiv 2406.09246).

Published OpenVLA says one action at a time. Ours may say chunks of several, and may have a mask word, which stands for
a word that is not known yet: with it a model can be trained to fill in whole blocks (`vla.decoding.block_diffusion`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import DynamicCache

from vla.api import InputError
from vla.models.config import check_whole, optional
from vla.models.family import Family
from vla.models.trunk import PRISM_7B, Trunk, TrunkConfig


@dataclass(frozen=True)
class OpenVlaConfig(TrunkConfig):
    """Everything that decides the shapes of an OpenVLA model, beside its trunk.

    Attributes:
        action_dim: numbers in one action; one word each.
        action_words: ids from `action_words - bins` up to `action_words - 1` mean actions, the highest id the lowest.
        bins: edges that part [-1, 1] into equal bins.
        language_head: always True.
        horizon: actions in a chunk.
        mask_word: id that stands for a word not known yet; None: the model fills in no blocks.
        text_words: rows of the tokenizer's words, where action words have rows of their own; None: action words share
            rows with the tokenizer's least used words, as in OpenVLA.

    Raises:
        InputError: on a value outside its range.
    """

    language_head: bool = optional(True)
    action_dim: int = 7
    action_words: int = 32000
    bins: int = 256
    horizon: int = optional(1)
    mask_word: int | None = optional(None)
    text_words: int | None = optional(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("bins", self.bins, 2)
        if not self.bins <= self.action_words <= self.vocabulary:
            raise InputError(
                f"action_words must be from bins = {self.bins} to vocabulary = {self.vocabulary}, "
                f"got {self.action_words}"
            )
        if not self.language_head:
            raise InputError("language_head must be true: actions come out of the vocabulary head")
        self._check_own_words()

    def _check_own_words(self) -> None:
        if self.mask_word is not None:
            check_whole("mask_word", self.mask_word, 0)
            if self.first_action_word <= self.mask_word < self.action_words or self.mask_word >= self.vocabulary:
                raise InputError(
                    f"mask_word must be below vocabulary = {self.vocabulary} and no action word "
                    f"({self.first_action_word} to {self.action_words - 1}), got {self.mask_word}"
                )
        if self.text_words is not None:
            check_whole("text_words", self.text_words, 1)
            if self.text_words > self.first_action_word:
                raise InputError(
                    f"text_words must be at most {self.first_action_word}, the first action word, got {self.text_words}"
                )

    @property
    def words(self) -> int:
        """Words of a chunk."""
        return self.horizon * self.action_dim

    @property
    def first_action_word(self) -> int:
        """The lowest id that means an action."""
        return self.action_words - self.bins

    @property
    def max_tokens(self) -> int:
        """Longest sequence, with the words of a chunk."""
        return super().max_tokens + self.words


@dataclass(frozen=True)
class Prefilled:
    """What decoding goes on from.

    Attributes:
        hidden: (batch, tokens, language_width) hidden states after the final norm, of the newest tokens.
        attended: (batch, all tokens so far) bool, False at padding.
        cache: keys and values of all tokens so far; `OpenVla.extend` adds to it in place.
    """

    hidden: Tensor
    attended: Tensor
    cache: DynamicCache


class OpenVla(Trunk):
    """The plain model, in the stages `encode`, `prefill`, then `logits` and `extend` in turns, and `actions`."""

    HEAD = "tokens"
    config: OpenVlaConfig

    def __init__(self, config: OpenVlaConfig) -> None:
        super().__init__(config)

    def prefill(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> Prefilled:
        """Visual tokens and instruction to what decoding begins with: [BOS][visual][state][prompt][suffix].

        Args:
            visual: (batch, visual tokens, language_width).
            prompt: (batch, words) int64; padding (`pad_id`) may stand anywhere and changes nothing.
            state: (batch, state_dim), normalised; None for a model without state.

        Returns:
            With the hidden state of the last token, (batch, 1, language_width).
        """
        embeddings, attended = self.sequence(visual, prompt, state)
        cache = DynamicCache(config=self.language.llama.config)
        hidden = self.language(embeddings, attended, cache)  # (batch, tokens, width)
        return Prefilled(hidden[:, -1:], attended, cache)

    def extend(self, prefilled: Prefilled, words: Tensor) -> Prefilled:
        """Read (batch, n) int64 further words; the answer has the hidden states of those n."""
        attended = torch.cat([prefilled.attended, torch.ones_like(words, dtype=torch.bool)], dim=1)
        hidden = self.language(self.language.embed(words), attended, prefilled.cache)  # (batch, n, width)
        return Prefilled(hidden, attended, prefilled.cache)

    def peek(self, prefilled: Prefilled, words: Tensor) -> Tensor:
        """Read (batch, n) int64 further words that see each other in both directions, and forget them.

        Returns:
            (batch, n, language_width) their hidden states; `prefilled` stays as it was.
        """
        attended = torch.cat([prefilled.attended, torch.ones_like(words, dtype=torch.bool)], dim=1)
        hidden = self.language(self.language.embed(words), attended, prefilled.cache, causal=False)
        prefilled.cache.crop(-words.shape[1])
        return hidden

    def shortened(self, prefilled: Prefilled, count: int) -> Prefilled:
        """Without the newest `count` words, which are taken out of the cache in place."""
        attended = prefilled.attended[:, :-count]
        prefilled.cache.crop(-count)
        return Prefilled(prefilled.hidden[:, :-count], attended, prefilled.cache)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., language_width) -> (..., vocabulary) of the word that follows."""
        assert self.language.lm_head is not None
        return self.language.lm_head(hidden)

    def action_logits(self, hidden: Tensor) -> Tensor:
        """(..., language_width) -> (..., bins) of the action word that follows, the lowest id first.

        Only the rows of action words are read: at Llama's size 2 MB of the head's 260 MB.
        """
        head, first, last = self.language.lm_head, self.config.first_action_word, self.config.action_words
        if type(head) is nn.Linear:
            return functional.linear(hidden, head.weight[first:last])
        return self.logits(hidden)[..., first:last]

    def words(self, actions: Tensor) -> Tensor:
        """How actions are said; the inverse of `actions` to within half a bin.

        Args:
            actions: (batch, horizon, action_dim) in [-1, 1].

        Returns:
            (batch, horizon * action_dim) int64, action by action.
        """
        edges = torch.linspace(-1, 1, self.config.bins, dtype=torch.float64, device=actions.device)
        number = torch.bucketize(actions.double().flatten(1), edges, right=True)  # 1 to bins
        return self.config.action_words - number.clamp(1, self.config.bins)

    def actions(self, words: Tensor) -> Tensor:
        """What action words mean: the centres of their bins.

        Args:
            words: (batch, horizon * action_dim) int64; an id beyond the action words counts as the nearest of them.

        Returns:
            (batch, horizon, action_dim) float32 in [-1, 1].
        """
        edges = torch.linspace(-1, 1, self.config.bins, dtype=torch.float64, device=words.device)
        centres = (edges[:-1] + edges[1:]) / 2  # (bins - 1,)
        index = (self.config.action_words - words - 1).clamp(0, len(centres) - 1)  # the two lowest ids share a bin
        return centres[index].float().unflatten(1, (-1, self.config.action_dim))


FAMILY = Family("openvla", OpenVlaConfig, OpenVla, presets={"openvla_7b": OpenVlaConfig(**PRISM_7B)})
