"""Muon for the matrices of the blocks, AdamW for everything else, a cosine per phase, and an average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vla.training.muon import StackedMuon

WEIGHT_DECAY = 0.05
_NOT_MATRICES = ("embed", "lm_head", "positional", "final_layer", "x_embedder", "t_embedder", "uncondition", "lora_")


class Optimizer:
    """Steps both optimisers with one learning rate.

    Muon orthogonalises the update of a matrix; on these models it needs about a third of AdamW's samples. It trains
    every matrix of the blocks, the projections into the language model, the state's included, and the key-point maps.
    Embeddings, the vocabulary head, the diffusion head's own input and output maps, biases, norms and low-rank changes
    stay with AdamW.

    Args:
        modules: whose parameters to train, except those that ask for no gradients.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for module in modules:
            for name, parameter in module.named_parameters():
                if not parameter.requires_grad:
                    continue
                hidden = parameter.ndim == 2 and not any(part in name for part in _NOT_MATRICES)
                (matrices if hidden else others).append(parameter)
        self._parameters = [*matrices, *others]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
        ]
        if matrices:
            self._optimizers.append(StackedMuon(matrices, WEIGHT_DECAY))

    def step(self, learning_rate: float) -> None:
        """Clip the gradients to norm 1 and take one step."""
        nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, object]]:
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def cosine(progress: float, first: float, last: float) -> float:
    """Learning rate at `progress` in [0, 1] of a phase: from `first` to `last` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move an exponential average of the weights towards the model, faster during the first steps."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    for averaged, current in zip(average.parameters(), model.parameters(), strict=True):
        if current.requires_grad:
            averaged.lerp_(current, weight)
