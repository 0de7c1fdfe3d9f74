"""The flow-matching head: walks from noise to a chunk of actions along a velocity (pi0, arXiv 2410.24164)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PI0Config
from transformers.models.pi0.modeling_pi0 import PI0ActionTimeEmbedding, PI0TimestepEmbeddings

Velocity = Callable[[Tensor, Tensor], Tensor]


class FlowHead(nn.Module):
    """What stands around the action expert: state, noisy actions and time into its space, and velocities out of it.

    Args:
        config: of transformers' PI0, which the embedding comes from.
    """

    def __init__(self, config: PI0Config) -> None:
        super().__init__()
        self.config = config
        self.embed = PI0ActionTimeEmbedding(config)
        self.out = nn.Linear(self.embed.action_in_proj.out_features, config.max_action_dim)

    def compute_buffers(self) -> None:
        """Make what no checkpoint holds, after a construction without memory."""
        self.embed.sinusoid_embeds = PI0TimestepEmbeddings(self.config)

    def tokens(self, state: Tensor, actions: Tensor, time: Tensor) -> Tensor:
        """What the expert reads: one token for the state, then one for each action.

        Args:
            state: (batch, state_width).
            actions: (batch, horizon, action_width), noisy.
            time: (batch,) float32, from 1, which is noise, to 0, which is clean.

        Returns:
            (batch, 1 + horizon, expert_width).
        """
        return self.embed(state, actions, time)

    def velocity(self, hidden: Tensor) -> Tensor:
        """(batch, horizon, expert_width) of the actions' tokens -> (batch, horizon, action_width)."""
        return self.out(hidden.to(self.out.weight.dtype))


def euler(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Follow a velocity from time 1 to time 0 in equal steps (transformers `PI0ForConditionalGeneration`).

    Args:
        velocity: (actions (batch, horizon, width), time (batch,)) -> (batch, horizon, width).
        noise: (batch, horizon, width) standard normal.
        steps: how many; as many evaluations of `velocity`.

    Returns:
        (batch, horizon, width).
    """
    actions, stride = noise, -1.0 / steps
    for step in range(steps):
        time = torch.full((len(noise),), 1.0 + step * stride, dtype=torch.float32, device=noise.device)
        actions = actions + stride * velocity(actions, time)
    return actions


def pulled(velocity: Tensor, actions: Tensor, time: Tensor | float, known: Tensor, weights: Tensor) -> Tensor:
    """The velocity that leads to a chunk that continues known actions (RePaint's idea, arXiv 2201.09865, for a flow).

    The clean chunk that a velocity implies, `actions - time * velocity`, is averaged with the known one. What leads to
    the average is the average of what leads to the two.

    Args:
        velocity, actions: (batch, horizon, width) at this time.
        time: from 1, which is noise, to 0, which is clean; broadcasts.
        known: (batch, horizon, width), normalised and finite.
        weights: (batch, horizon, 1 or width) in [0, 1]: 1 leads to `known`, 0 changes nothing.

    Returns:
        (batch, horizon, width).
    """
    return torch.lerp(velocity, (actions - known) / time, weights)
