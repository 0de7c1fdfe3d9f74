"""pi0: PaliGemma -> keys and values of images and instruction -> a flow over a chunk of actions (arXiv 2410.24164)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PI0Config as PublishedConfig
from transformers.cache_utils import DynamicCache
from transformers.models.gemma.modeling_gemma import GemmaRotaryEmbedding
from transformers.models.pi0.modeling_pi0 import PI0Model

from vla.api import InputError
from vla.models.family import ActionModel, Family
from vla.models.heads.flow import FlowHead, euler, pulled
from vla.models.pi0_config import Pi0Config


@dataclass(frozen=True)
class Prefilled:
    """What the flow is conditioned on.

    Attributes:
        cache: keys and values of images and instruction; `Pi0.velocity` leaves it as it found it.
        attended: (batch, tokens) int64, 0 at padding.
        state: (batch, state_width).
    """

    cache: DynamicCache
    attended: Tensor
    state: Tensor


class Body(PI0Model):
    """transformers' PaliGemma and action expert, without the expert's word embeddings."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__(config)
        del self.dit.embed_tokens

    def compute_buffers(self) -> None:
        """Make what no checkpoint holds, after a construction without memory."""
        words, vision = self.vlm.language_model, self.vlm.vision_tower.embeddings
        for gemma in (words, self.dit):
            gemma.rotary_emb = GemmaRotaryEmbedding(gemma.config)
        scale = torch.tensor(words.config.hidden_size**0.5)
        words.embed_tokens.embed_scale = nn.Buffer(scale, persistent=False)
        vision.position_ids = nn.Buffer(torch.arange(vision.num_positions).expand(1, -1), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Body":
        """Move and cast, but keep the buffers in float32: rotary frequencies in bfloat16 are off by 0.1 rad."""
        exact = [(module, name, buffer) for module in self.modules() for name, buffer in module._buffers.items()]
        super()._apply(fn, recurse)
        for module, name, buffer in exact:
            moved = module._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                module._buffers[name] = buffer.to(moved.device)
        return self


class Pi0(ActionModel):
    """The plain model, in the stages `encode`, `prefill` and, for each step of the flow, `velocity`."""

    HEAD = "flow"
    config: Pi0Config

    def __init__(self, config: Pi0Config) -> None:
        super().__init__()
        self.config = config
        published = config.published()
        self.body = Body(published)
        self.head = FlowHead(published)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(horizon, action_width): the flow also moves the numbers that no robot has."""
        return self.config.horizon, self.config.action_width

    @property
    def decoders(self) -> tuple[Any, ...]:
        return self.body.vlm.language_model, self.body.dit

    def encode(self, images: Tensor) -> Tensor:
        """Images to visual tokens.

        Args:
            images: (batch, cameras, 3, height, width) in [-1, 1].

        Returns:
            (batch, cameras * tokens, language_width), camera by camera, each row by row.
        """
        features = self.body.vlm.get_image_features(images.flatten(0, 1))
        tokens = features.pooler_output  # (batch * cameras, tokens, language_width)
        return tokens.reshape(len(images), -1, tokens.shape[-1])

    def prefill(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> Prefilled:
        """Visual tokens and instruction, [visual][BOS][prompt], each of which attends to all.

        A camera that is not there is left out: its tokens would be masked and count as no position, as padding does.

        Args:
            visual: (batch, visual tokens, language_width).
            prompt: (batch, words) int64; padding (`pad_id`) may stand anywhere and changes nothing.
            state: (batch, state_dim), normalised; None for a model without state.
        """
        embeddings, mask = self.sequence(visual, prompt)
        attended = mask.long()
        cache = self.body.vlm(
            inputs_embeds=embeddings,
            attention_mask=attended,
            position_ids=attended.cumsum(dim=1) - 1,
            token_type_ids=torch.zeros_like(attended),
            use_cache=True,
        ).cache
        return Prefilled(cache, attended, self.padded(state, visual))

    def sequence(self, visual: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """What the language model is fed: [visual][BOS][prompt].

        Returns:
            Embeddings (batch, tokens, language_width), attended (batch, tokens) bool, False at padding.
        """
        words = functional.pad(prompt, (1, 0), value=self.config.bos_id)
        embeddings = torch.cat([visual, self.body.get_input_embeddings()(words)], dim=1)
        seen = torch.ones(visual.shape[:2], dtype=torch.bool, device=visual.device)
        return embeddings, torch.cat([seen, words != self.config.pad_id], dim=1)

    def velocity(self, prefilled: Prefilled, actions: Tensor, time: Tensor) -> Tensor:
        """One evaluation of the action expert.

        The state attends to the prefix, the actions to everything; positions go on after the prefix's last.

        Args:
            prefilled: as `prefill` gave it.
            actions: (batch, horizon, action_width), noisy.
            time: (batch,) float32, from 1, which is noise, to 0.

        Returns:
            (batch, horizon, action_width) float32.
        """
        tokens = self.head.tokens(prefilled.state, actions, time)  # (batch, 1 + horizon, expert_width)
        tokens = tokens.to(self.body.dit.norm.weight.dtype)
        hidden = self.body(
            action_embeds=tokens, attention_mask=prefilled.attended, cache=prefilled.cache
        ).last_hidden_state
        prefilled.cache.crop(-tokens.shape[1])
        return self.head.velocity(hidden[:, 1:])

    @torch.no_grad()
    def sample(self, prefilled: Prefilled, noise: Tensor, steps: int) -> Tensor:
        """Walk from noise to actions.

        Args:
            prefilled: as `prefill` gave it.
            noise: (batch, horizon, action_width) standard normal float32.
            steps: of Euler's method.

        Returns:
            (batch, horizon, action_dim) float32, normalised.
        """
        chunk = euler(lambda actions, time: self.velocity(prefilled, actions, time), noise, steps)
        return chunk[..., : self.config.action_dim]

    @torch.no_grad()
    def inpaint(self, prefilled: Prefilled, noise: Tensor, steps: int, known: Tensor, weights: Tensor) -> Tensor:
        """Walk from noise to actions that continue known ones; everything else is as in `sample`.

        Args:
            prefilled, noise, steps: as `sample`.
            known: (batch, horizon, action_dim) float32, normalised and finite.
            weights: (batch, horizon, 1) in [0, 1]: 1 keeps a row of `known` exactly, 0 leaves it to the network.

        Returns:
            (batch, horizon, action_dim) float32, normalised.
        """
        known, weights = self.widened(known, weights)

        def velocity(actions: Tensor, time: Tensor) -> Tensor:
            return pulled(self.velocity(prefilled, actions, time), actions, time[:, None, None], known, weights)

        chunk = torch.where(weights == 1, known, euler(velocity, noise, steps))
        return chunk[..., : self.config.action_dim]

    def widened(self, known: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """As `inpaint` has them, both (batch, horizon, action_width): numbers that no robot has weigh nothing."""
        more = (0, self.config.action_width - self.config.action_dim)
        return functional.pad(known, more), functional.pad(weights.expand_as(known), more)

    def padded(self, state: Tensor | None, visual: Tensor) -> Tensor:
        """The state, (batch, state_width) in the head's dtype, zeros where the robot has nothing to say."""
        if state is None:
            if self.config.state_dim:
                raise InputError(f"this model needs a state of {self.config.state_dim} numbers, got none")
            state = visual.new_zeros(len(visual), 0)
        return functional.pad(state.to(self.head.out.weight.dtype), (0, self.config.state_width - state.shape[1]))


FAMILY = Family("pi0", Pi0Config, Pi0, presets={"pi0": Pi0Config()})
