"""What an answer costs whatever the clock says: operations, parameters, and bytes that are read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from eval.profiler.latency import STAGES, watching
from vla.api import Observation
from vla.policy import VlaPolicy

_LOOK_UP = torch.ops.aten.embedding.default  # reads some rows of its table
_FUSED_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # not among those PyTorch counts


@dataclass(frozen=True)
class Cost:
    """Of one answer.

    Attributes:
        flops: stage -> floating-point operations.
        flops_by_dtype: the same operations by what they are done in.
        read_bytes: of weights that take part; each counts once, however often it is read.
    """

    flops: Mapping[str, int]
    flops_by_dtype: Mapping[torch.dtype, int]
    read_bytes: int


class FlopSpans:
    """Counts operations of matrix products and convolutions by stage; a multiplication with an addition counts two."""

    milliseconds: Mapping[str, float] = {}

    def __init__(self) -> None:
        self.flops: dict[str, int] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if stage not in STAGES:
            yield
            return
        with FlopCounterMode(display=False, custom_mapping={_FUSED_ON_CPU: _attention_flops}) as counter:
            yield
        self.flops[stage] = counter.get_total_flops()


class Watch(TorchDispatchMode):
    """Notes what operations are done in, and which memory that was there before they read.

    That memory is the weights, wherever a recipe keeps them, and little else.

    Attributes:
        flops: dtype -> floating-point operations.
        extents: first address -> bytes, of tensors that were read; they may overlap.
        rows: bytes of rows that were looked up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[torch.dtype] = Counter()
        self.extents: dict[int, int] = {}
        self.rows = 0
        self._made: set[int] = set()

    @property
    def read_bytes(self) -> int:
        """Bytes that were read at least once."""
        return self.rows + covered(self.extents.items())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket is _FUSED_ON_CPU:
            self.flops[args[0].dtype] += _attention_flops(*(tensor.shape for tensor in args[:3]))
        elif func.overloadpacket in flop_registry:
            formula = flop_registry[func.overloadpacket]
            self.flops[_tensors(result)[0].dtype] += formula(*args, **(kwargs or {}), out_val=result)
        given = _tensors((args, kwargs))
        before = [tensor for tensor in given if _memory(tensor) not in self._made]
        self._made.update({_memory(tensor) for tensor in _tensors(result)} - {_memory(tensor) for tensor in before})
        if func is _LOOK_UP and before:
            self.rows += result.nbytes
        elif not func.is_view:
            for tensor in before:
                size = tensor.numel() * tensor.element_size()
                self.extents[tensor.data_ptr()] = max(size, self.extents.get(tensor.data_ptr(), 0))
        return result


def covered(extents: Iterable[tuple[int, int]]) -> int:
    """Bytes in the union of (first address, bytes)."""
    total, end = 0, 0
    for start, size in sorted(extents):
        total += max(0, start + size - max(start, end))
        end = max(end, start + size)
    return total


def count(policy: VlaPolicy, observation: Observation) -> Cost:
    """Answer once, counting.

    The stages run as ordinary operations meanwhile: the counter does not see into compiled ones.
    """
    spans = FlopSpans()
    with policy.plainly(), watching(policy, lambda: spans), Watch() as watch:
        policy.infer(observation)
    return Cost(spans.flops, dict(watch.flops), watch.read_bytes)


def count_parameters(model: torch.nn.Module) -> int:
    """Numbers that training set."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes that the parameters take as they are stored."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Of shapes (batch, heads, tokens, dim)."""
    return sdpa_flop_count(query, key, value)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    """What tells one allocation from another."""
    return tensor.untyped_storage().data_ptr()
