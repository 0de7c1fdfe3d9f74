"""The stages as the model defines them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from vla.accelerate.stages import Execution, Stages
from vla.acting import head_of
from vla.inpainting import inpainting_of
from vla.models.family import ActionModel


@dataclass(frozen=True)
class Eager(Execution):
    """Nothing done."""

    places: ClassVar[frozenset[str]] = frozenset({"weights", "decoding"})

    def stages(self, model: ActionModel, recipe: Any) -> Stages:
        if model.HEAD == "tokens":
            decoder = recipe.plugs["decoding"][0].decoder()
            return Stages(model.encode, model.prefill, decoder.acting(model, model), decoder=decoder)
        return Stages(model.encode, model.prefill, head_of(model, recipe), inpainting_of(model, recipe))


TECHNIQUE = Eager
