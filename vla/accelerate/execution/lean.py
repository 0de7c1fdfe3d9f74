"""The same computation without what nobody reads and without what is the same every time; exact up to rounding.

One pass over the prompt instead of `generate`; no vocabulary head for a model whose head reads a hidden state; in the
last layer only the positions whose output is used; time embeddings, masks and positions made once; query, key and
value as one product, gate and up as one. See `vla.accelerate.lean` for each.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from vla.accelerate.lean.decoder import Layer, decoder_layer
from vla.accelerate.lean.diffusion import LeanDiffusion
from vla.accelerate.lean.encoder import Encode, encoder_blocks
from vla.accelerate.lean.flow import LeanPi0
from vla.accelerate.lean.graphs import captured
from vla.accelerate.lean.trunks import LeanTrunk, LeanWriter
from vla.accelerate.stages import Execution, Stages
from vla.api import InputError
from vla.models.family import ActionModel

_SPECIALISATIONS = 64  # of one compiled function: towers and heads differ in shape


class Functions(NamedTuple):
    """What the layers of a model are run with."""

    encode: Encode
    decoder_layer: Layer


@dataclass(frozen=True)
class Lean(Execution):
    """Runs the models of all families without their ballast.

    Args:
        compile: whether each kind of layer is compiled with `torch.compile`. It fuses norms, gates and rotations with
            their neighbours; the first answers then take as long as the compiler does.
        graphs: whether, on a GPU, each stage is recorded once for each shape of its inputs and replayed from then on.

    Raises:
        InputError: if one is neither true nor false.
    """

    compile: bool = False
    graphs: bool = True
    places: ClassVar[frozenset[str]] = frozenset({"weights", "decoding", "tokens", "action_cache"})

    def __post_init__(self) -> None:
        for name in ("compile", "graphs"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"execution=lean: {name} must be true or false, got {getattr(self, name)!r}")

    def unfit(self, model: ActionModel) -> str | None:
        if model.HEAD not in _STAGES:
            return f"heads of kind {model.HEAD!r} have no lean stages, only {', '.join(_STAGES)}"
        return None

    def stages(self, model: ActionModel, recipe: Any) -> Stages:
        plain = Functions(encoder_blocks, decoder_layer)
        stages = _STAGES[model.HEAD](model, recipe, self._functions(plain))
        place = next(model.parameters()).device
        if self.graphs and place.type == "cuda":
            stages = captured(stages)
        if not self.compile and not stages.plain:
            return stages
        uncompiled = _STAGES[model.HEAD](model, recipe, plain) if self.compile else stages.plain
        return Stages(stages.encode, stages.prefill, stages.act, stages.inpaint, uncompiled)

    def _functions(self, plain: Functions) -> Functions:
        if not self.compile:
            return plain
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, _SPECIALISATIONS)
        with warnings.catch_warnings():  # torch imports its compiler here, which uses its own deprecated parts
            warnings.simplefilter("ignore", DeprecationWarning)
            return Functions(torch.compile(encoder_blocks), torch.compile(decoder_layer))


def _diffusion(model: Any, recipe: Any, functions: Functions) -> Stages:
    trunk = LeanTrunk(model, *functions, _before(recipe))
    head = LeanDiffusion(model.head, recipe.denoising_steps, recipe.guidance_scale, functions.encode, _wrap(recipe))
    return Stages(trunk.encode, trunk.last_hidden, head.sample, head.inpaint)


def _tokens(model: Any, recipe: Any, functions: Functions) -> Stages:
    trunk = LeanTrunk(model, *functions, _before(recipe))
    writer = LeanWriter(model, trunk.decoder)
    (decoding,) = recipe.plugs["decoding"]
    return Stages(
        trunk.encode, trunk.prefill, lambda prefilled, noise: model.actions(decoding.decode(writer, prefilled))
    )


def _flow(model: Any, recipe: Any, functions: Functions) -> Stages:
    lean = LeanPi0(model, recipe.denoising_steps, *functions, _before(recipe), _wrap(recipe))
    return Stages(lean.encode, lean.prefill, lean.sample)


_STAGES: dict[str, Callable[[Any, Any, Functions], Stages]] = {
    "diffusion": _diffusion,
    "tokens": _tokens,
    "flow": _flow,
}


def _before(recipe: Any) -> dict[int, list[Any]]:
    """Language layer -> the recipe's token techniques in front of it, in order."""
    layers: dict[int, list[Any]] = {}
    for technique in recipe.plugs["tokens"]:
        for layer in technique.layers:
            layers.setdefault(layer, []).append(technique.reduce)
    return layers


def _wrap(recipe: Any) -> Callable[[Any], Any]:
    """What the recipe's action cache puts around the blocks of a denoising network."""
    for technique in recipe.plugs["action_cache"]:
        return technique.wrap
    return lambda blocks: blocks


TECHNIQUE = Lean
