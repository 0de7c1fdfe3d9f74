"""Matrices that are orthogonalised together take the steps that they take alone."""

import copy

import torch
from torch import nn

from vla.training.muon import StackedMuon, orthogonalised

SHAPES = ((8, 8), (24, 8), (8, 24), (24, 8), (8, 8))


def test_its_steps_are_those_of_torch_s_muon() -> None:
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    alone = copy.deepcopy(together)
    optimizers = (
        StackedMuon(together, weight_decay=0.05),
        torch.optim.Muon(alone, lr=0.0, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(4):
        gradients = [torch.randn(shape) for shape in SHAPES]
        for parameters, optimizer in zip((together, alone), optimizers, strict=True):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = 0.01 * (1 + step)
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=3e-3, rtol=0)
    assert optimizers[0].state_dict()["state"].keys() == optimizers[1].state_dict()["state"].keys()


def test_a_matrix_without_a_gradient_stays() -> None:
    matrix = nn.Parameter(torch.ones(3, 3))
    optimizer = StackedMuon([matrix], weight_decay=0.1)
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert torch.equal(matrix, torch.ones(3, 3))


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 16), (2, 32, 8), (2, 8, 32)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape), (3.4445, -4.775, 2.0315), 5).float())
        assert values.min() > 0.5
        assert values.max() < 1.5
