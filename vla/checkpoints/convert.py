"""A checkpoint in any layout -> the native one."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from vla.api import InputError
from vla.checkpoints import native
from vla.checkpoints.checkpoint import Choices, layout_of, nothing_before
from vla.checkpoints.memory import require_bytes, require_disk
from vla.checkpoints.weights import FLOATS, KEPT_EXACT, bytes_needed, dtype_of

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in FLOATS} | {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
}


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        directory: of the native checkpoint.
        model_type: its family.
        parameters: how many numbers it has.
        dtype: what they are stored in, but for a diffusion head.
    """

    directory: Path
    model_type: str
    parameters: int
    dtype: torch.dtype


def convert(options: dict[str, Any]) -> Written:
    """Read one checkpoint, write another.

    Args:
        options: the values of `configs/convert.yaml`.

    Raises:
        InputError: if an option is of the wrong kind, the checkpoint cannot be read, `out` exists already, or there is
            too little memory or disk.
    """
    _check_kinds(options)
    source, out = Path(options["checkpoint"]), Path(options["out"])
    if out.exists():
        raise InputError(f"out={out} exists already; choose another, or remove it")
    given = {f.name: options[f.name] for f in fields(Choices) if f.name in options}
    choices = Choices(**{**given, "camera": _names(options["camera"])})
    wanted = None if options["dtype"] is None else _DTYPES[options["dtype"]]
    loaded = layout_of(source).load(source, choices, nothing_before)  # memory-mapped
    dtype = wanted or _stored(loaded.model)
    _check_room(loaded.model, dtype, out)
    try:
        native.save(out, loaded.model, loaded.robots or loaded.processing, loaded.tokenizer, loaded.training, dtype)
    except OSError as error:
        raise InputError(f"cannot write out={out}: {error.strerror}") from error
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    return Written(out, native.families.name_of(loaded.model), count, dtype)


def _check_room(model: torch.nn.Module, dtype: torch.dtype, out: Path) -> None:
    """Refuse what there is no memory or no disk for, or what would become infinite.

    What is cast needs memory of its own; what is not is written from where it lies.

    Raises:
        InputError: with both numbers, or naming the tensors.
    """
    cast = {name: t for name, t in model.state_dict().items() if t.dtype != dtype_of(name, dtype)}
    require_bytes(
        sum(t.numel() * dtype_of(name, dtype).itemsize for name, t in cast.items()),
        torch.device("cpu"),
        f"to store it in {str(dtype).removeprefix('torch.')}",
    )
    require_disk(bytes_needed(model, dtype), out)
    beyond = [
        name
        for name, t in cast.items()
        if t.numel() and max(-t.amin().item(), t.amax().item()) > torch.finfo(dtype_of(name, dtype)).max
    ]
    if beyond:
        largest = f"{torch.finfo(dtype).max:.3g}, the largest number in {str(dtype).removeprefix('torch.')}"
        raise InputError(f"{beyond} hold values beyond {largest}; choose dtype=bfloat16")


def _stored(model: torch.nn.Module) -> torch.dtype:
    """What the tensors are in, without a diffusion head; what holds all of them exactly if they are in several."""
    found = {p.dtype for name, p in model.named_parameters() if not name.startswith(f"{KEPT_EXACT}.")}
    return found.pop() if len(found) == 1 else torch.float32


def _names(camera: str | list[str] | None) -> tuple[str, ...] | None:
    """One name or several as several."""
    return (camera,) if isinstance(camera, str) else None if camera is None else tuple(camera)


def _check_kinds(options: dict[str, Any]) -> None:
    """Refuse what would be a traceback later."""
    names = options["camera"] if isinstance(options["camera"], list) else [options["camera"] or ""]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"camera must be one name or a list of different names, got {options['camera']!r}")
    for key in ("checkpoint", "out", "dataset", "rotation"):
        if not isinstance(options[key], str) and (key in ("checkpoint", "out") or options[key] is not None):
            raise InputError(f"{key} must be one name, got {options[key]!r}")
    for key in ("height", "width"):
        value = options[key]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{key} must be a whole number of at least 1 [px], got {value!r}")
    period = options["period"]
    if period is not None and (not isinstance(period, int | float) or isinstance(period, bool) or not period > 0):
        raise InputError(f"period must be positive seconds, got {period!r}")
    if options["dtype"] is not None and options["dtype"] not in _DTYPES:
        raise InputError(f"unknown dtype {options['dtype']!r}; allowed: {', '.join(_DTYPES)}")
