"""OpenVLA: vision tower -> projector -> language model -> one word for each number of an action (arXiv 2406.09246)."""

from dataclasses import dataclass

import torch
from torch import Tensor
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

    Raises:
        InputError: on a value outside its range.
    """

    language_head: bool = optional(True)
    action_dim: int = 7
    action_words: int = 32000
    bins: int = 256

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

    @property
    def horizon(self) -> int:
        """Actions in a chunk."""
        return 1

    @property
    def max_tokens(self) -> int:
        """Longest sequence, with the words of an action."""
        return super().max_tokens + self.action_dim


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

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., language_width) -> (..., vocabulary) of the word that follows."""
        assert self.language.lm_head is not None
        return self.language.lm_head(hidden)

    def actions(self, words: Tensor) -> Tensor:
        """What action words mean: the centres of their bins.

        Args:
            words: (batch, action_dim) int64; an id beyond the action words counts as the nearest of them.

        Returns:
            (batch, 1, action_dim) float32 in [-1, 1].
        """
        edges = torch.linspace(-1, 1, self.config.bins, dtype=torch.float64, device=words.device)
        centres = (edges[:-1] + edges[1:]) / 2  # (bins - 1,)
        index = (self.config.action_words - words - 1).clamp(0, len(centres) - 1)  # the two lowest ids share a bin
        return centres[index].float()[:, None]


FAMILY = Family("openvla", OpenVlaConfig, OpenVla, presets={"openvla_7b": OpenVlaConfig(**PRISM_7B)})
