"""What an answer costs whatever the clock says: operations, parameters, bytes and peak memory."""

import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from eval.profiler.latency import STAGES, watching
from vla.api import Observation
from vla.policy import VlaPolicy


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
        with FlopCounterMode(display=False) as counter:
            yield
        self.flops[stage] = counter.get_total_flops()


def count_flops(policy: VlaPolicy, observation: Observation) -> dict[str, int]:
    """Stage -> floating-point operations of one answer.

    Attention is spelled out while counting: the counter does not know the processor's fused kernel.
    """
    spans = FlopSpans()
    with watching(policy, lambda: spans), sdpa_kernel(SDPBackend.MATH):
        policy.infer(observation)
    return spans.flops


def count_parameters(model: torch.nn.Module) -> int:
    """Numbers that training set."""
    return sum(parameter.numel() for parameter in model.parameters())


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes that the parameters take as they are stored."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def memory_in_use(device: torch.device) -> int:
    """Bytes now: allocated on a GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") or _lifetime_peak()


def forget_peak_memory(device: torch.device) -> None:
    """Start `peak_memory` anew; without Linux the processor's is the peak since the process began."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS (proc(5))
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """The most bytes in use since `forget_peak_memory`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") or _lifetime_peak()


def _status(name: str) -> int | None:
    """A size [bytes] from the kernel's account of this process, or None where it keeps none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
    return sizes[0] if sizes else None


def _lifetime_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
