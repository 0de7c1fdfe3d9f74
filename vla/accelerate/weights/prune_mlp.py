"""Makes the MLPs of the language layers narrower, without training (EfficientVLA's 25%; arXiv 2506.10100, sec. 3.2).

A gated MLP is a sum over channels: what channel c adds to the residual stream is its activation a_c times column c of
the down projection. Three ways to say what leaving it out costs:

- "output": the change of what the head is given, the only thing of the language model that is used, to first order: the
  gradient of that feature with respect to a factor on a_c, in the root mean square over demonstrations and directions.
- "activation": rms(a_c) |W_c|, the change of the residual stream itself, whoever reads it.
- "magnitude": |gate_c| |up_c| |W_c|, from the weights alone; PruneNet, which the paper uses, sees no data either.

On the first shipped policy, a quarter of the channels gone by "output" changes the cognition feature by 4.1% (norm of
the difference over norm), by "magnitude" 5.7%, by "activation" 6.7%, by lot 22.6%; half of them 14, 22, 23 and 43%.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate import decoders
from vla.accelerate.stages import Weights
from vla.accelerate.weights.quantised import MULTIPLE
from vla.api import InputError
from vla.calibration.stored import ACTIVATION, COMMAND, OF_CHANNELS, OUTPUT
from vla.models.family import ActionModel

MAGNITUDE = "magnitude"
CRITERIA = (*OF_CHANNELS, MAGNITUDE)
_WIDE = 256  # channels; narrower MLPs are of small models, which nobody quantises


@dataclass(frozen=True)
class PruneMlp(Weights):
    """Leaves out the same share of channels in every language layer.

    Args:
        share: of the channels that go, from 0 to below 1; of wide MLPs a multiple of 16 stays.
        criterion: "output" or "activation", from the checkpoint's calibration; or "magnitude", which needs none.
        measured: for each layer of the checkpoint, of each channel, what the criterion needs; None: of the calibration.

    Raises:
        InputError: on a value outside its range.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"share": 0.25}
    share: float = 0.0
    criterion: str = OUTPUT
    measured: Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        number = isinstance(self.share, int | float) and not isinstance(self.share, bool)
        if not number or not 0 <= self.share < 1:
            raise InputError(f"weights=prune_mlp: share must be a number from 0 to below 1, got {self.share!r}")
        if self.criterion not in CRITERIA:
            raise InputError(f"weights=prune_mlp: criterion must be one of {CRITERIA}, got {self.criterion!r}")
        if self.measured is not None and not _is_table(self.measured):
            raise InputError(
                f"weights=prune_mlp: measured must list, for each layer, a number for each channel, "
                f"got {self.measured!r:.80}"
            )

    @property
    def learns(self) -> bool:
        return self.share > 0 and self.criterion != MAGNITUDE and self.measured is None

    def calibrated(self, model: ActionModel, calibration: Any) -> "PruneMlp":
        if not self.learns:
            return self
        if calibration is None:
            raise InputError(
                f"weights=prune_mlp needs a calibration of this checkpoint ({COMMAND}), or criterion: magnitude"
            )
        return replace(self, measured=calibration.channels[self.criterion])

    def unfit(self, model: ActionModel) -> str | None:
        width = decoders.mlp_width(model)
        if self._kept(width) < 1:
            return f"its MLPs are {width} wide, share = {self.share} leaves nothing"
        if not all(decoders.is_plain(layer.mlp.down_proj) for layer in model.decoders[0].layers):
            return "its weights are quantised; put prune_mlp before what quantises"
        if self.measured is None:
            return None
        if {len(row) for row in self.measured} != {width}:
            return f"its MLPs are {width} wide, what was measured is of another width"
        if len(self.measured) <= max(decoders.numbers(model)):
            return f"its checkpoint has {max(decoders.numbers(model)) + 1} layers, {len(self.measured)} were measured"
        return None

    def apply(self, model: ActionModel) -> ActionModel:
        if self.share == 0:
            return model
        keep = self._kept(decoders.mlp_width(model))
        decoder = model.decoders[0]
        for layer, number in zip(decoder.layers, decoders.numbers(model), strict=True):
            row = None if self.measured is None else self.measured[number]
            index = importance(layer.mlp, self.criterion, row).topk(keep).indices.sort().values
            decoders.keep_rows(layer.mlp.gate_proj, index)
            decoders.keep_rows(layer.mlp.up_proj, index)
            decoders.keep_columns(layer.mlp.down_proj, index)
            layer.mlp.intermediate_size = keep
        decoder.config.intermediate_size = keep
        model.config = replace(model.config, language_mlp_width=keep)
        return model

    def _kept(self, width: int) -> int:
        """Channels that stay; of many a multiple of what quantised products ask for, so that both can be had."""
        keep = width * (1 - self.share)
        return round(keep) if width < _WIDE else min(width, MULTIPLE * round(keep / MULTIPLE))


def _is_table(measured: Any) -> bool:
    kind = list | tuple
    rows = isinstance(measured, kind) and all(isinstance(row, kind) for row in measured)
    return rows and all(isinstance(x, int | float) and not isinstance(x, bool) for row in measured for x in row)


def importance(mlp: Any, criterion: str, measured: Sequence[float] | None) -> Tensor:
    """(channels,) float32 of a gated MLP.

    Args:
        mlp: of a Llama or Gemma.
        criterion: of `CRITERIA`.
        measured: of each channel, what the calibration says by that criterion; None for "magnitude".
    """
    column = mlp.down_proj.weight.detach().float().norm(dim=0)  # (channels,)
    if measured is None:
        made = mlp.gate_proj.weight.detach().float().norm(dim=1) * mlp.up_proj.weight.detach().float().norm(dim=1)
        return column * made
    known = torch.tensor(measured, device=column.device)
    return column * known if criterion == ACTIVATION else known


TECHNIQUE = PruneMlp
