"""The same computation without what nobody reads and without what is the same every time; exact up to rounding.

One pass over the prompt instead of `generate`; no vocabulary head for a model whose head reads a hidden state; in the
last layer only the positions whose output is used; time embeddings, masks and positions made once; query, key and
value as one product, gate and up as one. See `vla.accelerate.lean` for each.

The published code lets OpenVLA say any word, and reads those that mean no action as the nearest one: `words: every`
does the same, as the recipe `exact` has it. With `words: actions` action words alone are compared, and 2 MB instead of
260 MB of the vocabulary head are read for each; the actions are the same as long as the model says action words.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch

from vla.accelerate.lean.diffusion import LeanDiffusion
from vla.accelerate.lean.encoder import Encode, encoder_blocks
from vla.accelerate.lean.flow import LeanPi0
from vla.accelerate.lean.graphs import captured
from vla.accelerate.lean.layer import Layer, decoder_layer
from vla.accelerate.lean.tracing import traced
from vla.accelerate.lean.trunks import LeanTrunk, LeanWriter
from vla.accelerate.reduction.calls import Point
from vla.accelerate.reduction.layout import layout_of
from vla.accelerate.stages import Blocks, Denoising, Execution, Memory, Stages, Temporal, TokenReduction
from vla.api import InputError
from vla.decoding.decoder import Decoder
from vla.models.family import ActionModel

ACTIONS, EVERY = "actions", "every"
_SPECIALISATIONS = 64  # of one compiled function: towers and heads differ in shape


class Functions(NamedTuple):
    """What the layers of a model are run with."""

    encode: Encode
    decoder_layer: Layer


class Shared(NamedTuple):
    """What the compiled stages of a policy share with its plain ones.

    Attributes:
        memory: of sessions; None: nothing is remembered.
        reductions: the token techniques, with what watches for the memory.
        decoder: of words; None: the model says none.
        every_word: whether it compares all words, not only those that mean actions.
    """

    memory: Memory | None
    reductions: list[TokenReduction]
    decoder: Decoder | None
    every_word: bool


@dataclass(frozen=True)
class Lean(Execution):
    """Runs the models of all families without their ballast.

    Args:
        compile: whether each kind of layer is compiled with `torch.compile`. It fuses norms, gates and rotations with
            their neighbours; the first answers then take as long as the compiler does, 16 s more at 7B shapes on a
            processor, where one run gained 8% by it and another nothing.
        graphs: whether, on a GPU, each stage is recorded once for each shape of its inputs and replayed from then on.
        trace: whether, on a processor, each stage is written down once for each shape of a single observation's inputs
            and run without Python from then on; see `vla.accelerate.lean.tracing`.
        words: "actions" or "every": which are compared when a model says actions in words.

    Raises:
        InputError: on a value that is not allowed.
    """

    compile: bool = False
    graphs: bool = True
    trace: bool = False
    words: str = ACTIONS
    places: ClassVar[frozenset[str]] = frozenset({"weights", "decoding", "tokens", "temporal", "action_cache"})

    def __post_init__(self) -> None:
        for name in ("compile", "graphs", "trace"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"execution=lean: {name} must be true or false, got {getattr(self, name)!r}")
        if self.compile and self.trace:
            raise InputError("execution=lean: compile and trace exclude each other; a trace needs no compiler")
        if self.words not in (ACTIONS, EVERY):
            raise InputError(f"execution=lean: words must be {ACTIONS} or {EVERY}, got {self.words!r}")

    def unfit(self, model: ActionModel) -> str | None:
        if model.HEAD not in _STAGES:
            return f"heads of kind {model.HEAD!r} have no lean stages, only {', '.join(_STAGES)}"
        return None

    def stages(self, model: ActionModel, recipe: Any) -> Stages:
        plain, shared = Functions(encoder_blocks, decoder_layer), _shared(model, recipe, self.words == EVERY)
        stages = _STAGES[model.HEAD](model, recipe, _compiled() if self.compile else plain, shared)
        place = next(model.parameters()).device
        if self.graphs and place.type == "cuda":
            stages = captured(stages, left_out=_dynamic(recipe, stages))
        if self.trace and place.type == "cpu":
            model.requires_grad_(False)  # a trace holds weights as numbers that do not change
            stages = traced(stages, model.config.pad_id, left_out=_dynamic(recipe, stages))
        if not self.compile:
            return stages
        return replace(stages, plain=_STAGES[model.HEAD](model, recipe, plain, shared), few_lengths=True)


def _compiled() -> Functions:
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, _SPECIALISATIONS)
    with warnings.catch_warnings():  # torch imports its compiler here, which uses its own deprecated parts
        warnings.simplefilter("ignore", DeprecationWarning)
        return Functions(torch.compile(encoder_blocks), torch.compile(decoder_layer))


def _diffusion(model: Any, recipe: Any, functions: Functions, shared: Shared) -> Stages:
    memory = shared.memory
    trunk = LeanTrunk(model, *functions, shared.reductions)
    if memory:
        trunk.remember(memory)
    steps, scale = recipe.denoising_steps, recipe.guidance_scale
    head = LeanDiffusion(model.head, steps, scale, functions.encode, _wrap(recipe, 1 if scale == 1 else 2))
    return Stages(trunk.encode, trunk.last_hidden, head.sample, head.inpaint, memory=memory)


def _tokens(model: Any, recipe: Any, functions: Functions, shared: Shared) -> Stages:
    memory, decoder = shared.memory, shared.decoder
    assert decoder is not None
    trunk = LeanTrunk(model, *functions, shared.reductions)
    if memory:
        trunk.remember(memory)
    writer = LeanWriter(model, trunk.decoder, shared.every_word)
    return Stages(trunk.encode, trunk.prefill, decoder.acting(model, writer), memory=memory, decoder=decoder)


def _flow(model: Any, recipe: Any, functions: Functions, shared: Shared) -> Stages:
    memory = shared.memory
    lean = LeanPi0(model, recipe.denoising_steps, *functions, shared.reductions, _wrap(recipe, 1))
    if memory:
        lean.remember(memory)
    return Stages(lean.encode, lean.prefill, lean.sample, lean.inpaint, memory=memory)


_STAGES: dict[str, Callable[[Any, Any, Functions, Shared], Stages]] = {
    "diffusion": _diffusion,
    "tokens": _tokens,
    "flow": _flow,
}


def _shared(model: ActionModel, recipe: Any, every_word: bool) -> Shared:
    decoder = recipe.plugs["decoding"][0].decoder() if model.HEAD == "tokens" else None
    return Shared(*_remembering(model, recipe), decoder, every_word)


def _remembering(model: ActionModel, recipe: Any) -> tuple[Memory | None, list[TokenReduction]]:
    """What the recipe's policy remembers of each session, and its token techniques with what watches for that."""
    reductions = list(recipe.plugs["tokens"])
    for technique in recipe.plugs["temporal"]:
        found = technique.remembering(model)
        if found is not None:
            _check_all_there(technique, reductions, model)
            memory, watch = found
            return memory, [*([] if watch is None else [watch]), *reductions]
    return None, reductions


def _check_all_there(temporal: Temporal, reductions: list[TokenReduction], model: ActionModel) -> None:
    """That what is reused is there: patches in the vision tower, maybe their tokens in the language model."""
    for technique in reductions:
        if temporal.ALL_TOKENS:
            raise InputError(
                f"temporal={temporal.method} and tokens={technique.method} exclude each other: one keeps visual tokens "
                f"in the language model from step to step, the other takes some out; static_patches goes with both"
            )
        merges = any(call.point == Point.ENCODER for call in technique.calls(layout_of(model)))
        if merges or technique.statistics:
            raise InputError(
                f"temporal={temporal.method} and tokens={technique.method} exclude each other: one reads some patches "
                f"in the vision tower, the other needs all of them there"
            )


def _dynamic(recipe: Any, stages: Stages) -> frozenset[str]:
    """Stages that do not do the same work for every input of one shape, or keep something."""
    names = set()
    if any(technique.dynamic for technique in recipe.plugs["tokens"]) or stages.memory is not None:
        names |= {"encode", "prefill"}
    if any(
        technique.dynamic
        for technique in (*recipe.plugs["tokens"], *recipe.plugs["action_cache"], *recipe.plugs["decoding"])
    ):
        names |= {"act"}
    return frozenset(names)


def _wrap(recipe: Any, copies: int) -> Callable[[Blocks], Blocks]:
    """What the recipe's action cache puts around the blocks of a denoising network."""
    run = Denoising(recipe.denoising_steps, copies)
    for technique in recipe.plugs["action_cache"]:
        technique.check(run)
        return lambda blocks: technique.wrap(blocks, run)
    return lambda blocks: blocks


TECHNIQUE = Lean
