"""Muon with the matrices of one shape orthogonalised together.

A small model has a hundred small matrices; together they need a few operations in place of thousands.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class StackedMuon(torch.optim.Muon):
    """`torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`: the same steps, but for bfloat16's rounding.

    Args:
        matrices: (rows, columns) parameters.
        weight_decay: per step, relative to the learning rate.
    """

    def __init__(self, matrices: Sequence[Tensor], weight_decay: float) -> None:
        super().__init__(list(matrices), lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step from the gradients that are there."""
        for group in self.param_groups:
            updates: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    updates[matrix.shape].append((matrix, self._momentum(matrix, matrix.grad, group["momentum"])))
            for shape, each in updates.items():
                turned = orthogonalised(
                    torch.stack([update for _, update in each]), group["ns_coefficients"], group["ns_steps"]
                )
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                for (matrix, _), change in zip(each, turned, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-rate)

    def _momentum(self, matrix: Tensor, gradient: Tensor, momentum: float) -> Tensor:
        """Nesterov's update."""
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return torch.lerp(gradient, buffer, momentum)


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """Matrices with all singular values near 1, by Newton and Schulz (Jordan 2024).

    Args:
        matrices: (count, rows, columns).
        coefficients: of the quintic iteration.
        steps: of it.

    Returns:
        (count, rows, columns), bfloat16 on a GPU, float32 on a CPU, of which many compute in bfloat16 a lot slower.
    """
    a, b, c = coefficients
    wide = matrices.shape[1] <= matrices.shape[2]
    turned = (matrices if wide else matrices.mT).to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    turned = turned / torch.linalg.matrix_norm(turned, keepdim=True).clamp(min=1e-7)  # singular values of at most 1
    for _ in range(steps):
        gram = turned @ turned.mT
        turned = torch.baddbmm(turned, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), turned, beta=a)
    return turned if wide else turned.mT
