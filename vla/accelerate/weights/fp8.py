"""Weights in float8, a scale for each output; activations in float8 as they come, a scale for each token (torchao).

Per-channel weights and per-token activations are the safest of the quantisations that were measured on robot policies
(FlashRT's pi0.5 keeps its success rate); it needs a GPU with float8 products: compute capability 8.9 or higher.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vla.accelerate.stages import Weights
from vla.accelerate.weights.quantised import check_plain, quantise, torchao
from vla.api import InputError
from vla.models.family import ActionModel

_LEAST = (8, 9)  # compute capability: Ada


@dataclass(frozen=True)
class Fp8(Weights):
    """Halves the weights' bytes in bfloat16, and doubles the rate of products."""

    IDENTITY: ClassVar[Mapping[str, Any] | None] = None

    def unfit(self, model: ActionModel) -> str | None:
        return check_plain(model, self.method)

    def apply(self, model: ActionModel) -> ActionModel:
        """As `Weights.apply`.

        Raises:
            InputError: if the model's device has no float8 products.
        """
        _check_device(next(model.parameters()).device)
        library = torchao(self.method)
        config = library.Float8DynamicActivationFloat8WeightConfig(granularity=library.PerRow())
        return quantise(model, library, config)


def _check_device(device: torch.device) -> None:
    wanted = f"weights=fp8 needs a GPU of compute capability {_LEAST[0]}.{_LEAST[1]} or higher"
    if device.type != "cuda":
        raise InputError(f"{wanted}, got device={device.type}; weights=int8 runs on a processor")
    if torch.cuda.get_device_capability(device) < _LEAST:
        raise InputError(f"{wanted}, got {torch.cuda.get_device_name(device)}")


TECHNIQUE = Fp8
