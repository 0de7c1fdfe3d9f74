"""The denoising loop of a diffusion head with everything that is the same in every step or every call taken out.

Time embeddings depend on the schedule alone: computed once. The condition's embedding depends on the cognition token
alone: once per call. Both halves of a guided batch have the same actions: embedded once. What remains of a DDIM step
is one multiplication and one addition, its two factors known beforehand.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from vla.accelerate.lean.encoder import Encode, Encoder, dit_block
from vla.accelerate.stages import Blocks
from vla.models.heads.diffusion import DiffusionHead, ddim_inpaint, timesteps_for


class LeanDiffusion:
    """A diffusion head with its number of steps and guidance fixed.

    Args:
        head: whose weights are used.
        steps, guidance_scale: as `DiffusionHead.sample`.
        encode: `encoder_blocks`, or a compiled one.
        wrap: what an action cache puts around the blocks, (step, hidden (2 * batch, 1 + horizon, width)) -> the same;
            called for every chunk, so that nothing of an earlier one is left.
    """

    def __init__(
        self,
        head: DiffusionHead,
        steps: int,
        guidance_scale: float,
        encode: Encode,
        wrap: Callable[[Blocks], Blocks] = lambda blocks: blocks,
    ) -> None:
        net = head.net
        self._head, self._net, self._scale = head, net, guidance_scale
        self._guided = guidance_scale != 1
        self.schedule = timesteps_for(steps, head.train_steps)
        self._levels = [*(head.noise_levels[timestep] for timestep in self.schedule), 1.0]
        place = net.positional_embedding.device
        self._times = net.t_embedder(torch.tensor(self.schedule, device=place)) + net.positional_embedding[0]
        self._without = net.z_embedder(net.z_embedder.uncondition)  # (1, width)
        self._bias = net.x_embedder.linear.bias + net.positional_embedding[1:]  # (horizon, width)
        self._factors = [self._step(*pair) for pair in pairwise(self._levels)]
        blocks = Encoder([dit_block(each) for each in net.blocks], encode)
        self._wrap, self._blocks = wrap, blocks

    def sample(self, cognition: Tensor, noise: Tensor) -> Tensor:
        """As `DiffusionHead.sample`."""
        predict, actions = self._predictor(cognition), noise
        for index, (keep, add) in enumerate(self._factors):
            predicted = predict(index, actions)
            actions = torch.add(keep * actions, predicted, alpha=add)
        return actions

    def inpaint(self, cognition: Tensor, noise: Tensor, known: Tensor, weights: Tensor) -> Tensor:
        """As `DiffusionHead.inpaint`."""
        return ddim_inpaint(self._head.prediction, self._levels, self._predictor(cognition), noise, known, weights)

    def _predictor(self, cognition: Tensor) -> Callable[[int, Tensor], Tensor]:
        """(step, actions (batch, horizon, A)) -> the guided prediction, for one chunk."""
        condition = self._condition(cognition)
        blocks = self._wrap(lambda index, hidden: self._blocks(hidden))
        return lambda index, actions: self._predict(index, actions, condition, blocks)

    def _condition(self, cognition: Tensor) -> Tensor:
        """(steps, batch or 2 * batch, 1, width): the token in front of the actions, for every step."""
        embedded = self._net.z_embedder(cognition.to(self._bias.dtype))  # (batch, width)
        if self._guided:
            embedded = torch.cat([embedded, self._without.expand(len(embedded), -1)])
        return (self._times[:, None] + embedded)[:, :, None]

    def _predict(self, index: int, actions: Tensor, condition: Tensor, blocks: Blocks) -> Tensor:
        """The guided prediction at one step, (batch, horizon, A)."""
        embedded = actions @ self._net.x_embedder.linear.weight.T + self._bias  # (batch, horizon, width)
        if self._guided:
            embedded = torch.cat([embedded, embedded])
        hidden = blocks(index, torch.cat([condition[index], embedded], dim=1))
        predicted = self._net.final_layer(hidden[:, 1:])
        if not self._guided:
            return predicted
        conditioned, unconditioned = predicted.chunk(2)
        return torch.lerp(unconditioned, conditioned, self._scale)

    def _step(self, level: float, following: float) -> tuple[float, float]:
        """Factors of the actions and of the prediction in one DDIM step (`DiffusionHead.step`, solved)."""
        signal, spread = math.sqrt(level), math.sqrt(1 - level)
        next_signal, next_spread = math.sqrt(following), math.sqrt(1 - following)
        if self._head.prediction == "epsilon":
            return next_signal / signal, next_spread - next_signal * spread / signal
        return next_spread / spread, next_signal - next_spread * signal / spread
