"""Says that a model does not fit before it is loaded or written."""

import shutil
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
    needed, half = bytes_needed(model, dtype), bytes_needed(model, torch.bfloat16)
    advice = f"; in bfloat16 it needs {_gigabytes(half)}" if half < needed else ""
    require_bytes(needed, device, f"in {str(dtype).removeprefix('torch.')}", advice)


def require_bytes(needed: int, device: torch.device, what_for: str, advice: str = "") -> None:
    """Refuse what this device has no memory for.

    Raises:
        InputError: with both numbers.
    """
    there = available(device)
    if there is not None and needed > there:
        raise InputError(
            f"this model needs {_gigabytes(needed)} of memory {what_for}, "
            f"{device.type} has {_gigabytes(there)} free{advice}"
        )


def require_disk(needed: int, path: Path) -> None:
    """Refuse to write what the disk has no room for.

    Args:
        needed: bytes.
        path: of what will be written; it and folders above it need not be there yet.

    Raises:
        InputError: with both numbers.
    """
    folder = next(above for above in path.absolute().parents if above.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{path} needs {_gigabytes(needed)} of disk, {folder} has {_gigabytes(free)} free")


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
