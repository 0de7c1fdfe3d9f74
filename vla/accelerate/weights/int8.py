"""Weights in int8, a scale for each output; activations in int8 as they come, a scale for each token (torchao)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vla.accelerate.stages import Weights
from vla.accelerate.weights.quantised import check_plain, quantise, torchao
from vla.models.family import ActionModel


@dataclass(frozen=True)
class Int8(Weights):
    """Halves the weights' bytes in bfloat16; faster only where products are large, not for the small shipped models."""

    IDENTITY: ClassVar[Mapping[str, Any] | None] = None

    def unfit(self, model: ActionModel) -> str | None:
        return check_plain(model, self.method)

    def apply(self, model: ActionModel) -> ActionModel:
        library = torchao(self.method)
        return quantise(model, library, library.Int8DynamicActivationInt8WeightConfig())


TECHNIQUE = Int8
