"""Traces: on a processor, a stage's operations are written down once for each kind of inputs, and run without Python.

Between the operations of a small model, Python takes as long as some of them. TorchScript runs the same operations one
right after the other; it may join products that have a factor in common, so that results differ by rounding. PyTorch
calls `torch.jit.trace` deprecated; what it names instead either needs a C++ compiler and half a minute, or runs
operations from Python again (measured: slower than without it).
"""

import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vla.accelerate.stages import Stages

WARM_UP = 3  # runs in which TorchScript looks at shapes and rewrites itself
KEPT = 128  # traces of one stage: lengths of prompts
ROUNDING = 0.01  # of the largest number, also in bfloat16
_STAGES = ("encode", "prefill", "act")
_TENSOR = object()

log = logging.getLogger(__name__)


def traced(stages: Stages, pad_id: int, left_out: Collection[str] = ()) -> Stages:
    """The same stages as traces where a single observation is answered; continuing known actions stays as it is.

    Args:
        stages: on a processor, of a model whose parameters need no gradient.
        pad_id: word that is padding: whether a prompt has any decides what is done with it.
        left_out: stages that stay as they are, because what they do depends on more than that and shapes.
    """

    def padded(_visual: Any, prompt: Tensor, _state: Tensor | None) -> bool:
        return bool((prompt == pad_id).any())

    depends = {"prefill": padded}
    made = {name: Traced(getattr(stages, name), depends.get(name)) for name in _STAGES if name not in left_out}
    return replace(stages, **made, plain=stages)


class _Trace(NamedTuple):
    """Operations for one kind of arguments.

    Attributes:
        run: tensors of the arguments -> tensors of what comes out.
        flat: what comes out, with `_TENSOR` where tensors go.
        tree: its structure.
    """

    run: Callable[..., Any]
    flat: list[Any]
    tree: pytree.TreeSpec


class Traced:
    """A function of nested tuples of tensors as a trace for each kind of arguments with a batch of one.

    The first answer of a kind takes some tenths of a second more.

    Args:
        function: does the same work for the same kind of arguments.
        depends: what else of the arguments decides what it does; None: nothing.
    """

    def __init__(self, function: Callable[..., Any], depends: Callable[..., Hashable] | None = None) -> None:
        self._function, self._depends = function, depends
        self._traces: OrderedDict[Hashable, _Trace] = OrderedDict()

    def __call__(self, *arguments: Any) -> Any:
        leaves, tree = pytree.tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if len(tensors[0]) > 1:
            return self._function(*arguments)
        key = (tree, tuple(map(_kind, leaves)), self._depends and self._depends(*arguments))
        if (trace := self._traces.get(key)) is None:
            trace = self._traces[key] = self._trace(leaves, tree)
            if len(self._traces) > KEPT:
                self._traces.popitem(last=False)
        self._traces.move_to_end(key)
        fresh = iter(trace.run(*tensors))
        return pytree.tree_unflatten([next(fresh) if each is _TENSOR else each for each in trace.flat], trace.tree)

    def _trace(self, leaves: Sequence[Any], tree: pytree.TreeSpec) -> _Trace:
        """Traced, and run until it is as fast as it gets."""
        outputs, shape = pytree.tree_flatten(self._function(*pytree.tree_unflatten(leaves, tree)))

        def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
            fresh = iter(tensors)
            given = [next(fresh) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            made = pytree.tree_leaves(self._function(*pytree.tree_unflatten(given, tree)))
            return tuple(each for each in made if isinstance(each, Tensor))

        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        expected = [each for each in outputs if isinstance(each, Tensor)]
        with warnings.catch_warnings():  # of the deprecation, and of each shape that becomes a number
            warnings.simplefilter("ignore")
            run: Any = torch.jit.trace(flat, tensors, check_trace=False)
        for _ in range(WARM_UP):
            if not all(map(_alike, run(*tensors), expected)):
                log.warning("a trace of %s gives something else, so it is not used", self._function)
                run = flat
                break
        return _Trace(run, [_TENSOR if isinstance(each, Tensor) else each for each in outputs], shape)


def _alike(got: Tensor, expected: Tensor) -> bool:
    """Up to rounding."""
    got, expected = got.double(), expected.double()
    finite = expected[expected.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(got, expected, rtol=0, atol=ROUNDING * largest, equal_nan=True)


def _kind(leaf: Any) -> Hashable:
    return (leaf.shape, leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf
