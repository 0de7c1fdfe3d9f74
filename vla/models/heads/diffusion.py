"""The diffusion head: denoises a chunk of actions given the cognition token (CogACT; DDPM training, DDIM sampling)."""

import math
import operator
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from vla.api import InputError
from vla.models.heads.dit import DiT

PREDICTIONS = ("epsilon", "sample")


class DiffusionHead(nn.Module):
    """CogACT's action model: a DiT, its noise schedule and its sampler.

    Args:
        action_dim, horizon, condition_dim, width, depth, heads: of the `DiT`.
        train_steps: length T of the noise schedule.
        prediction: what the network predicts: "epsilon", the noise, or "sample", the clean chunk.
    """

    def __init__(
        self,
        *,
        action_dim: int,
        horizon: int,
        condition_dim: int,
        width: int,
        depth: int,
        heads: int,
        train_steps: int = 100,
        prediction: str = "epsilon",
    ) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise InputError(f"prediction must be one of {list(PREDICTIONS)}, got {prediction!r}")
        self.train_steps = train_steps
        self.prediction = prediction
        self.net = DiT(
            action_dim=action_dim, horizon=horizon, condition_dim=condition_dim, width=width, depth=depth, heads=heads
        )
        self.noise_levels = squared_cosine_levels(train_steps)  # numbers, not a buffer: never cast with the weights

    def loss(
        self, cognition: Tensor, actions: Tensor, draws: int, generator: torch.Generator, drop_condition: float = 0.1
    ) -> Tensor:
        """Mean squared error of the prediction over random timesteps and noises.

        Args:
            cognition: (batch, condition_dim), used again for every draw.
            actions: (batch, horizon, action_dim), clean and normalised.
            draws: noises per chunk.
            generator: of the processor, also for a model on a GPU: source of timesteps, noises, dropped conditions.
            drop_condition: probability of training a draw without its condition, for guidance.
        """
        clean = actions.float().repeat(draws, 1, 1)  # (draws * batch, horizon, A)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)  # the same on every device
        steps = torch.randint(self.train_steps, (len(clean),), generator=generator).to(clean.device)
        dropped = (torch.rand(len(clean), 1, generator=generator) < drop_condition).to(clean.device)
        level = torch.tensor(self.noise_levels, device=clean.device)[steps][:, None, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        condition = torch.where(dropped, self.net.z_embedder.uncondition, cognition.repeat(draws, 1))
        predicted = self.net(noisy.to(condition.dtype), steps, condition).float()
        target = noise if self.prediction == "epsilon" else clean
        return (predicted - target).square().mean()

    @torch.no_grad()
    def sample(self, cognition: Tensor, noise: Tensor, steps: int, guidance_scale: float) -> Tensor:
        """Denoise a chunk with deterministic DDIM (eta 0, unclipped).

        Args:
            cognition: (batch, condition_dim).
            noise: (batch, horizon, action_dim) standard normal.
            steps: evaluations of the network; as `timesteps_for`.
            guidance_scale: 1 follows the condition as it is; otherwise the batch is doubled and the prediction is
                `unconditioned + guidance_scale * (conditioned - unconditioned)`.

        Returns:
            (batch, horizon, action_dim), normalised.

        Raises:
            InputError: if the schedule cannot be walked in that many equal strides.
        """
        schedule = timesteps_for(steps, self.train_steps)
        actions = noise
        for index, timestep in enumerate(schedule):
            predicted = self.predict(actions, timestep, cognition, guidance_scale)
            level = self.noise_levels[timestep]
            following = self.noise_levels[schedule[index + 1]] if index + 1 < len(schedule) else 1.0
            actions = self.step(actions, predicted, level, following)
        return actions

    @torch.no_grad()
    def inpaint(
        self, cognition: Tensor, noise: Tensor, steps: int, guidance_scale: float, known: Tensor, weights: Tensor
    ) -> Tensor:
        """Denoise a chunk that continues known actions; everything else is as in `sample`.

        Before every step, the clean chunk that the network sees is averaged with the known one (RePaint's idea,
        arXiv 2201.09865, for DDIM); the noise that belongs to the average goes on.

        Args:
            cognition, noise, steps, guidance_scale: as `sample`.
            known: (batch, horizon, action_dim), normalised and finite.
            weights: (batch, horizon, 1) in [0, 1]: 1 keeps a row of `known` exactly, 0 leaves it to the network.

        Returns:
            (batch, horizon, action_dim), normalised.

        Raises:
            InputError: as `sample`.
        """
        schedule = timesteps_for(steps, self.train_steps)
        levels = [*(self.noise_levels[timestep] for timestep in schedule), 1.0]

        def predict(index: int, actions: Tensor) -> Tensor:
            return self.predict(actions, schedule[index], cognition, guidance_scale)

        return ddim_inpaint(self.prediction, levels, predict, noise, known, weights)

    def predict(self, actions: Tensor, timestep: int, cognition: Tensor, guidance_scale: float) -> Tensor:
        """One guided evaluation of the network at one timestep, (batch, horizon, action_dim)."""
        condition = cognition.to(actions.dtype)
        if guidance_scale == 1:
            return self.net(actions, torch.full((len(actions),), timestep, device=actions.device), condition)
        without = self.net.z_embedder.uncondition.to(actions.dtype).expand(len(condition), -1)
        timesteps = torch.full((2 * len(actions),), timestep, device=actions.device)
        both = self.net(actions.repeat(2, 1, 1), timesteps, torch.cat([condition, without]))
        conditioned, unconditioned = both.chunk(2)
        return unconditioned + guidance_scale * (conditioned - unconditioned)

    def step(self, actions: Tensor, predicted: Tensor, level: float, following: float) -> Tensor:
        """One DDIM step from noise level `level` to `following` (1 is clean)."""
        signal, spread = math.sqrt(level), math.sqrt(1 - level)
        if self.prediction == "epsilon":
            noise, clean = predicted, (actions - spread * predicted) / signal
        else:
            noise, clean = (actions - signal * predicted) / spread, predicted
        return math.sqrt(following) * clean + math.sqrt(1 - following) * noise


def ddim_inpaint(
    prediction: str,
    levels: Sequence[float],
    predict: Callable[[int, Tensor], Tensor],
    noise: Tensor,
    known: Tensor,
    weights: Tensor,
) -> Tensor:
    """The loop of `DiffusionHead.inpaint`.

    Args:
        prediction: what the network predicts, one of `PREDICTIONS`.
        levels: noise levels from the first step's to 1, which is clean.
        predict: (step, actions (batch, horizon, A)) -> the network's guided prediction.
        noise, known, weights: as `DiffusionHead.inpaint`.
    """
    actions = torch.lerp(noise, _noised(known, noise, levels[0]), weights)
    for index, (level, following) in enumerate(pairwise(levels)):
        estimate = _clean(prediction, actions, predict(index, actions), level)
        clean = torch.where(weights == 1, known, torch.lerp(estimate, known, weights))
        implied = (actions - math.sqrt(level) * clean) / math.sqrt(1 - level)
        actions = _noised(clean, implied, following)
    return actions


def _clean(prediction: str, actions: Tensor, predicted: Tensor, level: float) -> Tensor:
    """The clean chunk that a prediction stands for."""
    if prediction == "epsilon":
        return (actions - math.sqrt(1 - level) * predicted) / math.sqrt(level)
    return predicted


def _noised(clean: Tensor, noise: Tensor, level: float) -> Tensor:
    """The clean chunk at a noise level (1 is clean)."""
    return math.sqrt(level) * clean + math.sqrt(1 - level) * noise


def squared_cosine_levels(train_steps: int) -> tuple[float, ...]:
    """`squaredcos_cap_v2`: share of the clean signal's variance at each timestep (Nichol and Dhariwal 2021, eq. 17)."""

    def level(progress: float) -> float:
        return math.cos((progress + 0.008) / 1.008 * math.pi / 2) ** 2

    ratios = [level((step + 1) / train_steps) / level(step / train_steps) for step in range(train_steps)]
    return tuple(accumulate((1 - min(1 - ratio, 0.999) for ratio in ratios), operator.mul))


def timesteps_for(steps: int, train_steps: int) -> list[int]:
    """Timesteps visited by DDIM, from noisy to clean, ending at 0; one step goes through the middle of the schedule.

    Raises:
        InputError: if no stride visits exactly `steps` timesteps.
    """
    if steps == 1:
        return [train_steps // 2]
    strides = [stride for stride in range(1, train_steps) if len(range(0, train_steps, stride)) == steps]
    if not strides:
        allowed = sorted({len(range(0, train_steps, stride)) for stride in range(1, train_steps)} | {1})
        raise InputError(f"{steps} denoising steps do not divide a schedule of {train_steps}; allowed: {allowed}")
    return list(range(0, train_steps, strides[0]))[::-1]
