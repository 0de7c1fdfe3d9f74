"""Lean stages of pi0.

The state's token attends to the prefix and to itself, never to the actions: its keys and values are the same in every
step of the flow, so they are computed once and join the prefix's. Of the prefix, only keys and values are ever read:
its last layer needs nothing else. The time's part of the input map depends on the step alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.lean.decoder import Decoder, ReadPrefix, Tokens, mask_of
from vla.accelerate.lean.encoder import Encode
from vla.accelerate.lean.layer import Layer
from vla.accelerate.lean.trunks import encoded, remembered
from vla.accelerate.lean.vision import paligemma_tower
from vla.accelerate.reduction.layout import Visual, layout_of
from vla.accelerate.reduction.plan import Plan
from vla.accelerate.stages import Blocks, Memory, TokenReduction
from vla.models.heads.flow import pulled
from vla.models.pi0 import Pi0


class Prefilled(NamedTuple):
    """What the flow is conditioned on.

    Attributes:
        cache: keys and values of images, instruction and state by layer of the expert.
        turn: of the actions' positions.
        mask: (batch, 1, 1, all tokens), as of `mask_of`; None: all see all.
    """

    cache: tuple[tuple[Tensor, Tensor], ...]
    turn: tuple[Tensor, Tensor]
    mask: Tensor | None


class LeanPi0:
    """A pi0 with its number of flow steps fixed, over its own weights.

    Args:
        model: the pi0.
        steps: of Euler's method.
        encode, decoder_layer: those of `vla.accelerate.lean`, or compiled ones.
        reductions: the recipe's token techniques.
        wrap: what an action cache puts around the expert's layers; called for every chunk.
    """

    def __init__(
        self,
        model: Pi0,
        steps: int,
        encode: Encode,
        decoder_layer: Layer,
        reductions: Sequence[TokenReduction],
        wrap: Callable[[Blocks], Blocks],
    ) -> None:
        config, body = model.config, model.body
        self._model, self._plan, self._wrap = model, Plan(reductions, layout_of(model)), wrap
        self.tower: Any = paligemma_tower(body.vlm.vision_tower, encode)
        self._projector: Callable[[Tensor], Tensor] = body.vlm.multi_modal_projector
        prefix = config.cameras * config.visual_tokens + 1 + config.max_prompt
        self._language = Decoder(body.vlm.language_model, decoder_layer, gemma=True, causal=False, positions=prefix)
        self._expert = Decoder(body.dit, decoder_layer, gemma=True, causal=False, positions=prefix + 1 + config.horizon)
        self._remembering: ReadPrefix | None = None
        self._visual_tokens = config.cameras * config.visual_tokens
        self._stride = -1.0 / steps
        self._times = [1.0 + step * self._stride for step in range(steps)]
        self._inputs, self._biases = _folded(model.head.embed, self._times)

    def remember(self, memory: Memory) -> None:
        """Have images and sequences read by what remembers those before."""
        self.tower, self._projector = remembered(memory, self.tower, self._projector, self._plan)
        self._remembering = memory.reading(self._language, 0)

    def encode(self, images: Tensor) -> Tensor | Visual:
        """As `Pi0.encode`; or fewer tokens, with what is known of them."""
        return encoded(images, self.tower, self._projector, self._plan)

    def prefill(self, visual: Tensor | Visual, prompt: Tensor, state: Tensor | None) -> Prefilled:
        """As `Pi0.prefill`, and what the expert makes of the state."""
        embedded = self._plan.tokens_of(visual)
        embeddings, attended = self._model.sequence(embedded, prompt)
        full = self._plan.begin(visual, embeddings, attended, start=0, words=(1, 0))
        read, cache = (self._remembering or self._language.read)(full, 0, self._plan.before)
        following = self._visual_tokens + attended[:, embedded.shape[1] :].sum(dim=1, keepdim=True)  # of the state
        token = self._model.head.embed.state_proj(self._model.padded(state, embedded))[:, None]
        _, cache = self._expert.go_on(self._cast(token), self._expert.turn(following), _mask(read, 1), cache, 0)
        horizon = self._model.config.horizon
        positions = following + 1 + torch.arange(horizon, device=following.device)
        return Prefilled(tuple(cache), self._expert.turn(positions), _mask(read, 1 + horizon))

    def sample(self, prefilled: Prefilled, noise: Tensor) -> Tensor:
        """As `Pi0.sample`."""
        velocity, actions = self._velocity(prefilled), noise
        for index in range(len(self._times)):
            actions = actions + self._stride * velocity(index, actions)
        return actions[..., : self._model.config.action_dim]

    def inpaint(self, prefilled: Prefilled, noise: Tensor, known: Tensor, weights: Tensor) -> Tensor:
        """As `Pi0.inpaint`."""
        known, weights = self._model.widened(known, weights)
        velocity, actions = self._velocity(prefilled), noise
        for index, time in enumerate(self._times):
            actions = actions + self._stride * pulled(velocity(index, actions), actions, time, known, weights)
        return torch.where(weights == 1, known, actions)[..., : self._model.config.action_dim]

    def _velocity(self, prefilled: Prefilled) -> Callable[[int, Tensor], Tensor]:
        """(step, actions (batch, horizon, action_width)) -> the velocity, for one chunk."""

        def expert(index: int, hidden: Tensor) -> Tensor:
            made, _ = self._expert.go_on(hidden, prefilled.turn, prefilled.mask, prefilled.cache, hidden.shape[1])
            return made

        blocks = self._wrap(expert)

        def velocity(index: int, actions: Tensor) -> Tensor:
            inside = functional.silu(actions @ self._inputs + self._biases[index])  # (batch, horizon, expert_width)
            hidden = blocks(index, self._cast(self._model.head.embed.action_time_mlp_out(inside)))
            return self._model.head.velocity(self._expert.norm(hidden))

        return velocity

    def _cast(self, tokens: Tensor) -> Tensor:
        return tokens.to(self._model.body.dit.norm.weight.dtype)


def _mask(prefix: Tokens, more: int) -> Tensor | None:
    """(batch, 1, 1, prefix and `more` tokens): every token sees all but the prefix's padding."""
    if not prefix.padded and prefix.bias is None:
        return None
    bias = None if prefix.bias is None else functional.pad(prefix.bias, (0, more))
    return mask_of(functional.pad(prefix.attended, (0, more), value=True), bias)


def _folded(embed: Any, times: Sequence[float]) -> tuple[Tensor, list[Tensor]]:
    """The two maps from noisy actions to the inside of the action-time MLP as one.

    Returns:
        (action_width, expert_width), and for each time the bias (expert_width,) that it stands for.
    """
    of_actions, of_time = embed.action_time_mlp_in.weight.chunk(2, dim=1)  # each (expert_width, expert_width)
    waves = embed.sinusoid_embeds(torch.tensor(times, device=of_time.device)).to(of_time.dtype)
    biases = waves @ of_time.T + of_actions @ embed.action_in_proj.bias + embed.action_time_mlp_in.bias
    return (of_actions @ embed.action_in_proj.weight).T.contiguous(), list(biases)
