"""CUDA graphs: a stage is recorded once for each shape of its inputs, and replayed with one launch from then on.

A stage that was recorded reads from and writes to fixed places in memory. What another recorded stage wrote is read
where it stands; everything else is copied in. Outputs are overwritten by the next replay, so they must not be kept:
what leaves the policy is copied to the host before.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vla.accelerate.stages import Stages

Replay = Callable[[], None]
Record = Callable[[Callable[[], Any]], tuple[Replay, Any]]
WARM_UP = 3  # runs before recording: libraries set up workspaces, compiled functions compile
KEPT = 128  # recordings of one stage: lengths of prompts (`vla.preparing`) times sizes of batches


def captured(stages: Stages, record: Record | None = None, left_out: Collection[str] = ()) -> Stages:
    """The same stages as recordings; continuing known actions stays as it is.

    Args:
        stages: on a GPU.
        record: how a function without arguments is recorded; None: with one CUDA graph, all in one memory pool.
        left_out: stages that stay as they are, because what they do depends on more than shapes.
    """
    record = record or _recorder()
    places: set[int] = set()
    recorded = {
        name: Captured(getattr(stages, name), record, places)
        for name in ("encode", "prefill", "act")
        if name not in left_out
    }
    return replace(stages, **recorded, plain=stages, few_lengths=True)


class Captured:
    """A function of nested tuples of tensors, recorded for each kind of arguments.

    Args:
        function: always does the same work for the same kind of arguments, and never waits for the device.
        record: how a function without arguments is recorded.
        places: where recorded functions write; shared among those that read each other's outputs.
    """

    def __init__(self, function: Callable[..., Any], record: Record, places: set[int]) -> None:
        self._function, self._record, self._places = function, record, places
        self._recordings: OrderedDict[Hashable, tuple[list[Any], Replay, Any]] = OrderedDict()

    def __call__(self, *arguments: Any) -> Any:
        leaves, tree = pytree.tree_flatten(arguments)
        key = (str(tree), tuple(_kind(leaf) for leaf in leaves))
        if key not in self._recordings:
            self._recordings[key] = self._recorded(leaves, tree)
            if len(self._recordings) > KEPT:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        inputs, replay, outputs = self._recordings[key]
        for fixed, given in zip(inputs, leaves, strict=True):
            if isinstance(fixed, Tensor) and fixed.data_ptr() != given.data_ptr():
                fixed.copy_(given)
        replay()
        return outputs

    def _recorded(self, leaves: Sequence[Any], tree: Any) -> tuple[list[Any], Replay, Any]:
        inputs = [self._fixed(leaf) for leaf in leaves]
        arguments = pytree.tree_unflatten(inputs, tree)
        replay, outputs = self._record(lambda: self._function(*arguments))
        self._places.update(each.data_ptr() for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor))
        return inputs, replay, outputs

    def _fixed(self, leaf: Any) -> Any:
        """Where this input is read from in every replay."""
        if not isinstance(leaf, Tensor) or leaf.data_ptr() in self._places:
            return leaf
        return leaf.clone()


def _kind(leaf: Any) -> Hashable:
    return (leaf.shape, leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf


def _recorder() -> Record:
    """Records with CUDA graphs that share one memory pool."""
    pool = torch.cuda.graph_pool_handle()

    def record(function: Callable[[], Any]) -> tuple[Replay, Any]:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            outputs = function()
        return graph.replay, outputs

    return record
