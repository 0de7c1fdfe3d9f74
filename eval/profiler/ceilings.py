"""What this device can do at best, measured in the same run: rate of matrix products and of reading memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import torch

TRIALS = 10


@dataclass(frozen=True)
class Sizes:
    """How much work one trial is.

    Attributes:
        side: of the square matrices that are multiplied.
        rows: of the matrix that is read; it must not fit into caches.
        columns: of the same.
    """

    side: int
    rows: int
    columns: int = 8192


SIZES = {"cpu": Sizes(side=1024, rows=8192), "cuda": Sizes(side=8192, rows=65536)}


@dataclass(frozen=True)
class Ceilings:
    """The best of several trials.

    Attributes:
        bytes_per_second: read from memory in a matrix-vector product, which is how a batch of one uses weights.
        flops_per_second: of a large square matrix product, by dtype.
    """

    bytes_per_second: float
    flops_per_second: Mapping[torch.dtype, float] = field(default_factory=dict)

    def floor_ms(self, weight_bytes: int, flops: Mapping[torch.dtype, int]) -> float:
        """The least time [ms] in which this device could read the weights once and do the operations.

        Args:
            weight_bytes: of all weights.
            flops: operations by the dtype they are done in.
        """
        computing = sum(count / self.flops_per_second[dtype] for dtype, count in flops.items())
        return 1e3 * max(weight_bytes / self.bytes_per_second, computing)


def measure_ceilings(device: torch.device, dtypes: set[torch.dtype], sizes: Sizes | None = None) -> Ceilings:
    """Measure with as many threads as the model uses.

    Args:
        device: the model's.
        dtypes: of the model's parts.
        sizes: of the work; None for what suits the device.
    """
    sizes = sizes or SIZES[device.type]
    with torch.inference_mode():
        rates = {dtype: _product_rate(device, dtype, sizes.side) for dtype in dtypes}
        return Ceilings(_reading_rate(device, sizes.rows, sizes.columns), rates)


def _product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    left, right = torch.ones(2, side, side, device=device, dtype=dtype).unbind()
    out = torch.empty_like(left)
    return 2 * side**3 / _shortest(device, lambda: torch.mm(left, right, out=out))


def _reading_rate(device: torch.device, rows: int, columns: int) -> float:
    matrix = torch.ones(rows, columns, device=device)
    vector, out = torch.ones(columns, device=device), torch.empty(rows, device=device)
    return matrix.nbytes / _shortest(device, lambda: torch.mv(matrix, vector, out=out))


def _shortest(device: torch.device, work: Callable[[], object]) -> float:
    """[s] of the fastest trial, after one that does not count."""
    seconds = []
    for _ in range(TRIALS + 1):
        start = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - start)
    return min(seconds[1:])
