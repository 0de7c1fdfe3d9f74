"""CogACT's diffusion transformer: predicts the noise in a chunk of actions (arXiv 2411.19650).

The condition enters as one extra token in front of the actions, added to the embedding of the timestep. There is no
adaptive layer norm and no cross-attention. Parameter names and arithmetic follow the published weights.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

FREQUENCIES = 256
MAX_PERIOD = 10_000.0


class Embedder(nn.Module):
    """A linear map under the published name `linear`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values)


class ConditionEmbedder(Embedder):
    """Embeds the cognition token, and holds the learned token that stands for "no condition" (`uncondition`)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width)
        self.uncondition = nn.Parameter(torch.empty(1, inputs))


class TimestepEmbedder(nn.Module):
    """Embeds diffusion timesteps: sinusoids, then a two-layer MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timesteps: Tensor) -> Tensor:
        """(batch,) -> (batch, width)."""
        half = FREQUENCIES // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
        angles = timesteps[:, None].float() * torch.exp(-math.log(MAX_PERIOD) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)  # (batch, 256)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection (timm's `Attention`)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = functional.scaled_dot_product_attention

    def forward(self, hidden: Tensor) -> Tensor:
        batch, tokens, width = hidden.shape
        qkv = self.qkv(hidden).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (batch, heads, tokens, dim)
        mixed = self.attend(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two layers, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(hidden)))


class Block(nn.Module):
    """Pre-norm transformer block; the norms have no parameters."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, tokens, width) -> the same."""
        hidden = hidden + self.attn(self.norm1(hidden))
        return hidden + self.mlp(self.norm2(hidden))


class FinalLayer(nn.Module):
    """Norm without parameters, then a linear map to actions."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, outputs)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(self.norm_final(hidden))


class DiT(nn.Module):
    """The denoising network.

    Args:
        action_dim: numbers in one action.
        horizon: actions in a chunk.
        condition_dim: features of the cognition token.
        width, depth, heads: of the transformer.

    `history_embedder` is part of the published weights but takes no part in the forward pass.
    """

    def __init__(
        self, *, action_dim: int, horizon: int, condition_dim: int, width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        self.history_embedder = Embedder(action_dim, width)
        self.x_embedder = Embedder(action_dim, width)
        self.t_embedder = TimestepEmbedder(width)
        self.z_embedder = ConditionEmbedder(condition_dim, width)
        self.positional_embedding = nn.Parameter(torch.empty(horizon + 1, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.final_layer = FinalLayer(width, action_dim)
        self._initialise(width)

    def _initialise(self, width: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positional_embedding, std=width**-0.5)
        nn.init.normal_(self.z_embedder.uncondition, std=self.z_embedder.uncondition.shape[1] ** -0.5)
        for module in self.t_embedder.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.final_layer.linear.weight)

    def embed(self, actions: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """The sequence that enters the blocks, (batch, 1 + horizon, width): the condition token, then the actions."""
        token = self.t_embedder(timesteps) + self.z_embedder(condition)  # (batch, width)
        return torch.cat([token[:, None], self.x_embedder(actions)], dim=1) + self.positional_embedding

    def forward(self, actions: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        """One denoising evaluation.

        Args:
            actions: (batch, horizon, action_dim), noisy.
            timesteps: (batch,) in [0, train_steps).
            condition: (batch, condition_dim) cognition token.

        Returns:
            (batch, horizon, action_dim): what the head was trained to predict.
        """
        hidden = self.embed(actions, timesteps, condition)
        for block in self.blocks:
            hidden = block(hidden)
        return self.final_layer(hidden)[:, 1:]
