"""Leaves out the language layers that change the least (EfficientVLA, sec. 3.2; arXiv 2506.10100).

Those that stay need not be next to each other. In pi0 the action expert's layers read the keys and values of the same
numbered layers of the language model, so they go together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, ClassVar

from vla.accelerate import decoders
from vla.accelerate.stages import Weights
from vla.api import InputError
from vla.calibration.stored import COMMAND, HIDDEN, OF_LAYERS
from vla.models.family import ActionModel

_ROUNDING = 1e-6  # 0.7 of 10 layers are 7


@dataclass(frozen=True)
class PruneLayers(Weights):
    """Keeps the most important layers in their order.

    Args:
        keep: how many, or as a number with a point, which share, rounded up.
        criterion: importance in the checkpoint's calibration: "hidden" (EfficientVLA, eq. 1: 1 - cosine of what enters
            and what leaves a layer) or "output" (1 - cosine of what the head is given with and without it).
        layers: which to keep, instead of by importance.

    Raises:
        InputError: on a value outside its range.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"keep": 0.5}
    keep: int | float = 1.0
    criterion: str = HIDDEN
    layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.keep, int) and not isinstance(self.keep, bool) and self.keep >= 1
        if not whole and not (isinstance(self.keep, float) and 0 < self.keep <= 1):
            raise InputError(
                f"weights=prune_layers: keep must be a number of layers from 1 on, or a share above 0.0 and up to 1.0, "
                f"got {self.keep!r}"
            )
        if self.criterion not in OF_LAYERS:
            raise InputError(f"weights=prune_layers: criterion must be one of {OF_LAYERS}, got {self.criterion!r}")
        if self.layers is not None:
            object.__setattr__(self, "layers", _checked(self.layers))

    @property
    def learns(self) -> bool:
        return self.layers is None and not (isinstance(self.keep, float) and self.keep == 1)

    def calibrated(self, model: ActionModel, calibration: Any) -> "PruneLayers":
        depth = decoders.depth(model)
        count = self.keep if isinstance(self.keep, int) else ceil(self.keep * depth - _ROUNDING)
        if not self.learns or count >= depth:
            return self
        if calibration is None:
            raise InputError(
                f"weights=prune_layers needs a calibration of this checkpoint ({COMMAND}), or a list of layers to keep"
            )
        importance = calibration.layers[self.criterion]
        most = sorted(range(depth), key=lambda layer: importance[layer], reverse=True)[:count]
        return replace(self, layers=tuple(sorted(most)))

    def unfit(self, model: ActionModel) -> str | None:
        depth = decoders.depth(model)
        if isinstance(self.keep, int) and self.keep > depth:
            return f"it has {depth} layers, fewer than keep = {self.keep}"
        if self.layers is not None and self.layers[-1] >= depth:
            return f"its layers are 0 to {depth - 1}, layer {self.layers[-1]} cannot be kept"
        return None

    def apply(self, model: ActionModel) -> ActionModel:
        if self.layers is not None:
            decoders.keep_layers(model, self.layers)
        return model


def _checked(layers: Any) -> tuple[int, ...]:
    listed = tuple(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else ()
    whole = all(isinstance(layer, int) and not isinstance(layer, bool) and layer >= 0 for layer in listed)
    if not listed or not whole or list(listed) != sorted(set(listed)):
        raise InputError(
            f"weights=prune_layers: layers must list at least one layer to keep, ascending, each once, got {layers!r}"
        )
    return listed


TECHNIQUE = PruneLayers
