"""Linear maps over the weights of a model's own modules; several that read the same input become one."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(NamedTuple):
    """One map, or several side by side; plain tensors, so that one compiled function serves every layer."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]

    def __call__(self, hidden: Tensor, given: torch.dtype | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs of all); numbers as of `product`."""
        if len(self.weights) == 1:
            return product(hidden, self.weights[0], self.biases[0], given)
        parts = [product(hidden, w, b, given) for w, b in zip(self.weights, self.biases, strict=True)]
        return torch.cat(parts, dim=-1)

    @property
    def dtype(self) -> torch.dtype:
        """The numbers in which it multiplies."""
        return self.weights[0].dtype


def product(hidden: Tensor, weight: Tensor, bias: Tensor | None, given: torch.dtype | None = None) -> Tensor:
    """`functional.linear` in the numbers of the weight, given back in those of the hidden states or in others."""
    if weight.dtype == hidden.dtype and given in (None, hidden.dtype):
        return functional.linear(hidden, weight, bias)
    return functional.linear(hidden.to(weight.dtype), weight, bias).to(given or hidden.dtype)


class Norm(NamedTuple):
    """Scale and shift of a layer norm, None where it has none."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def __call__(self, hidden: Tensor) -> Tensor:
        return functional.layer_norm(hidden, hidden.shape[-1:], self.weight, self.bias, self.eps)


def linear(module: nn.Linear) -> Linear:
    """A map over a module's own weights."""
    return Linear((module.weight,), (module.bias,))


def fused(*modules: nn.Linear) -> Linear:
    """Several maps of the same input as one matrix product.

    The rows of all are laid out one after the other, and the modules' parameters become views of them: no weight is
    kept twice, names and values stay. Weights that are not plain tensors (quantised ones) stay apart.
    """
    if len(modules) == 1:
        return linear(modules[0])
    if not all(_is_plain(module) for module in modules):
        return Linear(tuple(m.weight for m in modules), tuple(m.bias for m in modules))
    weight = _side_by_side([module.weight for module in modules])
    biases = [module.bias for module in modules]
    return Linear((weight,), (None if biases[0] is None else _side_by_side(biases),))


def norm(module: nn.LayerNorm) -> Norm:
    """A layer norm over a module's own weights."""
    return Norm(module.weight, module.bias, module.eps)


def _is_plain(module: nn.Linear) -> bool:
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter


def _side_by_side(parameters: Sequence[Tensor]) -> Tensor:
    """Their rows in one tensor, of which they become views; nothing moves if they are that already."""
    if (together := _together(parameters)) is not None:
        return together
    joined = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, rows in zip(parameters, joined.split([len(p) for p in parameters]), strict=True):
        parameter.data = rows
    return joined


def _together(parameters: Sequence[Tensor]) -> Tensor | None:
    """The tensor that all are views of, one after the other, if there is one: made for another recipe of this model."""
    first = parameters[0].detach()
    address = first.data_ptr()
    for parameter in parameters:
        same = parameter.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or parameter.data_ptr() != address or not parameter.is_contiguous():
            return None
        address += parameter.numel() * parameter.element_size()
    return first.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride(), first.storage_offset())
