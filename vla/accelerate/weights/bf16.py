"""Products of linear maps in bfloat16; what is between them keeps the numbers of the model.

Processors with AVX-512 BF16 or AMX, and GPUs, multiply more such numbers than float32 ones in the same time, and read
half as many bytes. Residual streams, norms and attention keep the model's numbers, which `dtype=bf16` rounds too. So do
CogACT's head, the vocabulary head and the state's projection; pi0's action expert is rounded, the maps around it not.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from vla.accelerate.stages import Weights
from vla.accelerate.weights.quantised import check_plain, may_be_coarser
from vla.api import InputError
from vla.models.family import ActionModel
from vla.precision import multiplies_bfloat16

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bf16(Weights):
    """Rounds weights and what they are multiplied with; changes nothing where the device gains nothing by it.

    Args:
        emulated: whether it also rounds where the device has no instructions for such products: for looking at what
            rounding does, as that takes longer than float32.

    Raises:
        InputError: if `emulated` is neither true nor false.
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = None
    EXAMPLE: ClassVar[Mapping[str, Any]] = {"emulated": True}
    emulated: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.emulated, bool):
            raise InputError(f"weights=bf16: emulated must be true or false, got {self.emulated!r}")

    def unfit(self, model: ActionModel) -> str | None:
        return check_plain(model, self.method)

    def apply(self, model: ActionModel) -> ActionModel:
        if not self.emulated and not multiplies_bfloat16(next(model.parameters()).device):
            log.warning("weights=bf16 changes nothing: this device has no instructions for bfloat16")
            return model
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and may_be_coarser(name):
                _round(module)
        return model


def _round(module: nn.Linear | nn.Conv2d) -> None:
    """Have a map take and give what it did, and multiply in bfloat16."""
    kept = module.weight.dtype
    if kept == torch.bfloat16:
        return
    for name, parameter in list(module.named_parameters(recurse=False)):  # new ones: another recipe may have the old
        setattr(module, name, nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False))
    module.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(torch.bfloat16),))
    module.register_forward_hook(lambda _, inputs, output: output.to(kept))


TECHNIQUE = Bf16
