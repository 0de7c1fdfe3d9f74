"""What this device can do at best, measured in the same run: rate of matrix products and of reading memory."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch.nn.functional import linear

LEAST_TRIALS = 3
GIGABYTE = 2**30


@dataclass(frozen=True)
class Effort:
    """How much work the ceilings are measured with.

    Attributes:
        sides: of the square matrices that are multiplied; the best of them counts.
        least_bytes, most_bytes: bounds of what is read, which otherwise is as large as the weights: small weights stay
            in the caches from one answer to the next, large ones cannot.
        seconds: for the trials of one kind of work.
    """

    sides: tuple[int, ...]
    least_bytes: int = 2**23
    most_bytes: int = GIGABYTE
    seconds: float = 0.5


EFFORT = {
    "cpu": Effort(sides=(512, 1024, 2048)),
    "cuda": Effort(sides=(4096, 8192), most_bytes=4 * GIGABYTE),
}


@dataclass(frozen=True)
class Ceilings:
    """The best of several trials.

    Attributes:
        bytes_per_second: read from memory in a matrix-vector product, which is how a batch of one uses weights.
        flops_per_second: of a square matrix product, by dtype.
        bytes_read: how much was read in one trial.
    """

    bytes_per_second: float
    flops_per_second: Mapping[torch.dtype, float] = field(default_factory=dict)
    bytes_read: int = 0

    def floor_ms(self, weight_bytes: int, flops: Mapping[torch.dtype, int]) -> float:
        """The least time [ms] in which this device could read the weights once and do the operations.

        Args:
            weight_bytes: of the weights that are used.
            flops: operations by the dtype they are done in.
        """
        computing = sum(count / self.flops_per_second[dtype] for dtype, count in flops.items())
        return 1e3 * max(weight_bytes / self.bytes_per_second, computing)

    def best(self, other: "Ceilings") -> "Ceilings":
        """The higher of two measurements of the same: what else the machine does can only lower them."""
        rates = {dtype: max(rate, other.flops_per_second[dtype]) for dtype, rate in self.flops_per_second.items()}
        return Ceilings(max(self.bytes_per_second, other.bytes_per_second), rates, self.bytes_read)


def measure_ceilings(
    device: torch.device, dtypes: Iterable[torch.dtype], weight_bytes: int, effort: Effort | None = None
) -> Ceilings:
    """Measure with as many threads as the model uses.

    Args:
        device: the model's.
        dtypes: of the model's parts.
        weight_bytes: how much memory the model reads.
        effort: of the work; None for what suits the device.
    """
    effort = effort or EFFORT[device.type]
    size = min(max(weight_bytes, effort.least_bytes), effort.most_bytes)
    with torch.inference_mode():
        rates = {dtype: max(_product_rate(device, dtype, side, effort) for side in effort.sides) for dtype in dtypes}
        return Ceilings(_reading_rate(device, size, effort), rates, size)


def _product_rate(device: torch.device, dtype: torch.dtype, side: int, effort: Effort) -> float:
    left, right = torch.randn(2, side, side, device=device).to(dtype).unbind()  # ones would let a GPU clock higher
    return 2 * side**3 / _shortest(device, lambda: linear(left, right), effort.seconds / len(effort.sides))


def _reading_rate(device: torch.device, size: int, effort: Effort) -> float:
    columns = 1024
    matrix = torch.ones(max(1, size // (4 * columns)), columns, device=device)
    vector, out = torch.ones(columns, device=device), torch.empty(len(matrix), device=device)
    return matrix.nbytes / _shortest(device, lambda: torch.mv(matrix, vector, out=out), effort.seconds)


def _shortest(device: torch.device, work: Callable[[], object], seconds: float) -> float:
    """[s] of the fastest trial, after one that does not count."""
    timed(device, work)
    taken: list[float] = []
    while len(taken) < LEAST_TRIALS or sum(taken) < seconds:
        taken.append(timed(device, work))
    return min(taken)


def timed(device: torch.device, work: Callable[[], object]) -> float:
    """[s] until the work is done, on a GPU too."""
    wait(device)
    start = perf_counter()
    work()
    wait(device)
    return perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the device has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
