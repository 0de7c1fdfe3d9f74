"""How weights get into a model: built without memory, compared by name and shape, then given the tensors themselves."""

from collections.abc import Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from vla.api import InputError
from vla.models.config import ModelConfig
from vla.models.family import ActionModel, Family

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
KEPT_EXACT = "head"  # a diffusion head stays in float32 whatever the rest is in, as in the published code
_BLOCK = 2**20 + 7  # random numbers made once and used again and again: a prime, so that no two rows are alike
_SPREAD = 0.02


def empty(family: Family, config: ModelConfig) -> ActionModel:
    """The model in evaluation mode, its tensors on the meta device: shapes without memory."""
    with torch.device("meta"):
        return family.model_class(config).eval()


def dtype_of(name: str, dtype: torch.dtype) -> torch.dtype:
    """What a tensor of this name is in when the model is in `dtype`."""
    return torch.float32 if name.startswith(f"{KEPT_EXACT}.") else dtype


def bytes_needed(model: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of all tensors when the model is in `dtype`."""
    return sum(tensor.numel() * dtype_of(name, dtype).itemsize for name, tensor in model.state_dict().items())


def mismatches(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What is missing, unexpected or of another shape or kind, by name; empty if nothing is."""
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    different = [
        f"{name} is {kind(tensors[name])}, wanted {kind(wanted[name])}"
        for name in sorted(wanted.keys() & tensors.keys())
        if kind(tensors[name]) != kind(wanted[name])
    ]
    if not (missing or unexpected or different):
        return ""
    return f"missing {missing}; unexpected {unexpected}; different {different}"


def kind(tensor: Tensor) -> str:
    """dtype and shape, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def twin(model: ActionModel) -> ActionModel:
    """The same parameters and buffers in modules of its own, in which some may be left out or replaced."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return deepcopy(model, shared)


@torch.no_grad()
def own(model: ActionModel, device: torch.device, dtype: torch.dtype) -> ActionModel:
    """The model on a device, all but a diffusion head in `dtype`, in memory of its own.

    What was memory-mapped is copied tensor by tensor, so no more is needed than `bytes_needed`, and a file that is
    overwritten later changes nothing.
    """
    for name, part in model.named_children():
        kept = dtype_of(f"{name}.", dtype)

        def move(tensor: Tensor, kept: torch.dtype = kept) -> Tensor:
            return tensor.to(device, kept if tensor.is_floating_point() else tensor.dtype, copy=True)

        part._apply(move)
    return model


def fill(model: ActionModel, tensors: Mapping[str, Tensor]) -> ActionModel:
    """Give an empty model its tensors; nothing is copied, so what was memory-mapped stays so."""
    model.load_state_dict(dict(tensors), assign=True)
    return compute_buffers(model)


def randomise(model: ActionModel, device: torch.device, dtype: torch.dtype) -> ActionModel:
    """Give an empty model random weights, made where and as they are used: for timing, at the speed of copying."""
    generator = torch.Generator().manual_seed(0)
    block = _SPREAD * torch.randn(_BLOCK, generator=generator)  # (_BLOCK,)
    blocks = {kept: block.to(device, kept) for kept in (dtype, dtype_of(KEPT_EXACT + ".", dtype))}
    made, at = {}, 0
    for name, wanted in model.state_dict().items():
        tensor = torch.empty(wanted.shape, device=device, dtype=dtype_of(name, dtype))
        _fill_randomly(name, tensor, blocks[tensor.dtype], at)
        made[name] = tensor
        at = (at + tensor.numel()) % _BLOCK
    return fill(model, made)


def compute_buffers(model: ActionModel) -> ActionModel:
    """Make the buffers that no checkpoint holds, in the modules that have any."""
    for module in model.modules():
        made: Any = getattr(module, "compute_buffers", None)
        if made is not None:
            made()
    without = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    assert not without, f"no value for {without}: give their module a compute_buffers"
    return model


def check_kinds(source: object, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not floating-point weights.

    Raises:
        InputError: naming them.
    """
    wrong = [f"{name} is {kind(tensor)}" for name, tensor in tensors.items() if tensor.dtype not in FLOATS]
    if wrong:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
        raise InputError(f"{source} holds tensors that are not weights in {allowed}: {wrong}")


def check_finite(source: object, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no numbers.

    Raises:
        InputError: naming the tensors.
    """
    broken = sorted(name for name, tensor in tensors.items() if not _is_finite(tensor))
    if broken:
        raise InputError(f"{source} holds values that are not finite in {broken}; copy or train the checkpoint again")


def _is_finite(tensor: Tensor) -> bool:
    """Read once, without a mask of the same size."""
    return tensor.numel() == 0 or all(bool(edge.isfinite()) for edge in tensor.aminmax())


def _fill_randomly(name: str, tensor: Tensor, block: Tensor, start: int) -> None:
    """Norms pass everything on, biases nothing, the rest is random from `block[start]` on."""
    if tensor.ndim == 1 and name.endswith(("weight", "lambda1")):
        tensor.fill_(1)
    elif tensor.ndim == 1:
        tensor.zero_()
    else:
        flat, done = tensor.view(-1), 0
        while done < len(flat):
            count = min(len(flat) - done, len(block) - start)
            flat[done : done + count].copy_(block[start : start + count])
            done, start = done + count, (start + count) % len(block)
