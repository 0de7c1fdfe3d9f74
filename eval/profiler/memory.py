"""How much memory is in use, and the most that was."""

import resource
import sys
from pathlib import Path

import torch


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
