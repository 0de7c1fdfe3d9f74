"""The decoder of Llama and Gemma: where a prefix is read, where a suffix goes on from it, and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.lean.layer import DecoderShape, Layer, rms_norm, weights_of
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.probe import Probe


@dataclass(frozen=True)
class Sight:
    """Where the visual tokens of a sequence are, and what is known of them beside their hidden states.

    Attributes:
        start: tokens before the first of them.
        layout: how many each camera has, in order.
        patches: (batch, visual tokens) int64: index of the patch at whose position a token stands, in its camera.
        features: (batch, visual tokens, vision_width) of the tokens before the projector, or None.
        words: after the visual tokens, how many tokens come before the instruction's first word, and how many after
            its last.
    """

    start: int
    layout: Layout
    patches: Tensor
    features: Tensor | None
    words: tuple[int, int]

    @property
    def end(self) -> int:
        """Where the visual tokens end."""
        return self.start + sum(self.layout.counts)

    def kept(self, inside: Tensor, layout: Layout) -> "Sight":
        """Only the visual tokens at (batch, kept) indices among them."""
        features = None if self.features is None else _picked(self.features, inside)
        return replace(self, layout=layout, patches=_picked(self.patches, inside), features=features)


@dataclass(frozen=True)
class Tokens:
    """A sequence on its way through the layers.

    Attributes:
        hidden: (batch, tokens, width).
        positions: (batch, tokens) int64, of the full sequence whatever was taken out of it since; or (batch, tokens,
            groups), one for each group of the rotary frequencies.
        attended: (batch, tokens) bool, False at padding.
        padded: whether there is any padding.
        sight: which of them are visual, for those that take tokens out.
        probe: the attention of the layer before, for those that choose by it.
        bias: (batch, tokens) in the dtype of `hidden`: added to the logits of all attention to a token; None: nothing.
    """

    hidden: Tensor
    positions: Tensor
    attended: Tensor
    padded: bool
    sight: Sight | None = None
    probe: Probe | None = None
    bias: Tensor | None = None

    def kept(self, index: Tensor) -> "Tokens":
        """Only the tokens at (kept,) or (batch, kept) int64 ascending indices, at their positions."""
        index = index.expand(len(self.hidden), -1)
        return replace(
            self,
            hidden=_picked(self.hidden, index),
            positions=_picked(self.positions, index),
            attended=_picked(self.attended, index),
            probe=None if self.probe is None else self.probe.kept(index),
            bias=None if self.bias is None else _picked(self.bias, index),
        )


Reduce = Callable[[int, Tokens], Tokens]
KeyValues = list[tuple[Tensor, Tensor]]  # by layer, each (batch, kv_heads, tokens, dim)
ReadPrefix = Callable[[Tokens, int, Mapping[int, Sequence[Reduce]] | None], tuple[Tokens, KeyValues]]  # `Decoder.read`


class Decoder:
    """The layers and the final norm of a transformers Llama or Gemma, over its own weights.

    Args:
        model: a `LlamaModel` or `GemmaModel`.
        layer: `decoder_layer`, or a compiled one.
        gemma: which of the two it is.
        causal: whether a token sees only itself and those before.
        positions: how many there are at most.
    """

    def __init__(self, model: Any, layer: Layer, *, gemma: bool, causal: bool, positions: int) -> None:
        self.layers = [weights_of(each) for each in model.layers]
        config = model.config
        self.shape = DecoderShape(config.num_attention_heads, config.num_key_value_heads, config.rms_norm_eps, gemma)
        self._layer, self._causal, self._norm = layer, causal, model.norm.weight
        everywhere = torch.arange(positions, device=self._norm.device)[None]
        cosine, sine = model.rotary_emb(self._norm, everywhere)  # (1, positions, dim) in the model's dtype
        sign = torch.ones_like(sine)
        sign[..., : sine.shape[-1] // 2] = -1
        self._turns = cosine[0, :, None], (sine * sign)[0, :, None]  # each (positions, 1, dim)

    @property
    def causal(self) -> bool:
        """Whether a token sees only itself and those before."""
        return self._causal

    def read(
        self, tokens: Tokens, used: int, before: Mapping[int, Sequence[Reduce]] | None = None
    ) -> tuple[Tokens, KeyValues]:
        """Read a prefix.

        Args:
            tokens: all of them.
            used: how many of the last tokens' hidden states are read; 0 if only keys and values are.
            before: layer -> what is done to the tokens in front of it, in turn; it may take some out.

        Returns:
            The tokens that are left, their last `used` hidden states before the final norm; keys and values by layer.
        """
        cache, last = [], len(self.layers) - 1
        turn, mask, causal = self._around(tokens)
        entered = tokens.hidden
        for number, weights in enumerate(self.layers):
            if acts := (before or {}).get(number):
                tokens = self._reduced(number, acts, tokens, entered, turn, cache[-1][0] if cache else None)
                turn, mask, causal = self._around(tokens)
            entered = tokens.hidden
            wanted = used if number == last else entered.shape[1]
            hidden, key, value = self._layer(entered, weights, self.shape, turn, mask, causal, None, wanted)
            tokens = replace(tokens, hidden=hidden)
            cache.append((key, value))
        return tokens, cache

    def go_on(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None,
        past: Sequence[tuple[Tensor, Tensor]],
        used: int,
    ) -> tuple[Tensor, KeyValues]:
        """Read more tokens after a prefix.

        Args:
            hidden: (batch, tokens, width).
            turn: of their positions, from `turn`.
            mask: (batch, 1, tokens, past of the last layer and these tokens), as of `mask_of`; None: all see all.
            past: keys and values by layer, left as they are; earlier layers may have more, of visual tokens that were
                taken out later.
            used: how many of the last tokens' hidden states are read.

        Returns:
            (batch, used, width) before the final norm; keys and values of past and these tokens by layer.
        """
        cache, last = [], len(self.layers) - 1
        for number, (weights, before) in enumerate(zip(self.layers, past, strict=True)):
            wanted = used if number == last else hidden.shape[1]
            seen = _widened(mask, before[0].shape[2] + hidden.shape[1])
            hidden, key, value = self._layer(hidden, weights, self.shape, turn, seen, False, before, wanted)
            cache.append((key, value))
        return hidden, cache

    def turn(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine of (batch, tokens) positions, each (batch, tokens, 1, dim).

        Of (batch, tokens, groups) positions, each turns its own share of the frequencies, in order (PPE).
        """
        cosine, sine = self._turns
        if positions.ndim == 2:
            return cosine[positions], sine[positions]
        dim = cosine.shape[-1]
        every = torch.arange(dim, device=positions.device)
        group = every % (dim // 2) * positions.shape[-1] // (dim // 2)  # both halves have the same frequencies
        where = positions[..., group]  # (batch, tokens, dim)
        return cosine[where, 0, every][:, :, None], sine[where, 0, every][:, :, None]

    def norm(self, hidden: Tensor) -> Tensor:
        """The final norm."""
        return rms_norm(hidden, self._norm, self.shape)

    def _reduced(
        self,
        number: int,
        acts: Sequence[Reduce],
        tokens: Tokens,
        entered: Tensor,
        turn: tuple[Tensor, Tensor],
        key: Tensor | None,
    ) -> Tokens:
        """The tokens after what acts in front of a layer; `entered` and `key` are of the layer before."""
        if key is not None:
            weights, following = self.layers[number - 1 : number + 1]
            probe = Probe(
                entered, key, turn, tokens.attended, self._causal, weights, self.shape, following, tokens.bias
            )
            tokens = replace(tokens, probe=probe)
        for act in acts:
            tokens = act(number, tokens)
        return replace(tokens, probe=None)

    def _around(self, tokens: Tokens) -> tuple[tuple[Tensor, Tensor], Tensor | None, bool]:
        """Turns, mask, and whether it is the plain causal one, which needs none."""
        turn = self.turn(tokens.positions)
        if not tokens.padded and tokens.bias is None:
            return turn, None, self._causal
        return turn, mask_of(tokens.attended, tokens.bias, tokens.attended.shape[1] if self._causal else None), False


def _picked(of_tokens: Tensor, index: Tensor) -> Tensor:
    """(batch, tokens, ...) at (batch, kept) indices."""
    rows = torch.arange(len(index), device=index.device)[:, None]
    return of_tokens[rows, index]


def mask_of(attended: Tensor, bias: Tensor | None, asking: int | None = None) -> Tensor:
    """Who sees what.

    Args:
        attended: (batch, tokens) bool.
        bias: as `Tokens` has it, of these tokens.
        asking: the last so many tokens ask and see none after themselves; None: whoever asks sees all.

    Returns:
        (batch, 1, asking or 1, tokens) bool; with a bias what is added to logits, -inf at what is not seen.
    """
    seen = attended[:, None, None]
    if asking is not None:
        total = attended.shape[1]
        rows = torch.ones(asking, total, dtype=torch.bool, device=attended.device)
        seen = seen & rows.tril(total - asking)
    return seen if bias is None else torch.where(seen, bias[:, None, None], float("-inf"))


def _widened(mask: Tensor | None, total: int) -> Tensor | None:
    """A mask for a layer with more past: what comes first in a sequence, the visual tokens, is always seen.

    Never of a mask with a bias, which would be that of other tokens: see `vla.accelerate.reduction.plan.Plan`.
    """
    if mask is None or mask.shape[-1] == total:
        return mask
    assert mask.dtype == torch.bool
    return functional.pad(mask, (total - mask.shape[-1], 0), value=True)


def sequence(hidden: Tensor, attended: Tensor) -> Tokens:
    """A fresh sequence; padding does not count as a position.

    On a GPU the mask is always built: to look whether it is needed would make the device wait.
    """
    padded = attended.device.type != "cpu" or not bool(attended.all())
    return Tokens(hidden, (attended.long().cumsum(dim=1) - 1).clamp(min=0), attended, padded)
