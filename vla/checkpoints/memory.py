"""Says that a model does not fit before it is loaded."""

from pathlib import Path

import torch
from torch import nn

from vla.api import InputError
from vla.checkpoints.weights import bytes_needed

_CGROUP = Path("/sys/fs/cgroup")


def require_room(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a model that this device has no memory for.

    Args:
        model: without memory of its own yet.
        device: where it will be.
        dtype: what it will be in.

    Raises:
        InputError: with both numbers.
    """
    needed, there = bytes_needed(model, dtype), available(device)
    if there is None or needed <= there:
        return
    half = bytes_needed(model, torch.bfloat16)
    advice = f"; in bfloat16 it needs {_gigabytes(half)}" if half < needed else ""
    raise InputError(
        f"this model needs {_gigabytes(needed)} of memory in {str(dtype).removeprefix('torch.')}, "
        f"{device.type} has {_gigabytes(there)} free{advice}"
    )


def available(device: torch.device) -> int | None:
    """Free bytes, or None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [free for free in (_machine_free(), _container_free()) if free is not None]
    return min(known) if known else None


def _machine_free() -> int | None:
    """Bytes the kernel could give without swapping (proc(5), MemAvailable)."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _container_free() -> int | None:
    """Bytes below the limit of this container, if it has one; what only caches files counts as free."""
    limit, used = _lines(_CGROUP / "memory.max"), _lines(_CGROUP / "memory.current")
    if not limit or not used or limit[0] == "max":
        return None
    caching = [int(line.split()[1]) for line in _lines(_CGROUP / "memory.stat") if line.startswith("inactive_file ")]
    return int(limit[0]) - int(used[0]) + sum(caching)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
