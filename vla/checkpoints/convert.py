"""A checkpoint in any layout -> the native one."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from vla.api import InputError
from vla.checkpoints import native
from vla.checkpoints.checkpoint import Choices, layout_of
from vla.checkpoints.memory import require_room
from vla.checkpoints.weights import FLOATS, KEPT_EXACT

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
        InputError: if an option is of the wrong kind, the checkpoint cannot be read, or `out` exists already.
    """
    _check_kinds(options)
    source, out = Path(options["checkpoint"]), Path(options["out"])
    if out.exists():
        raise InputError(f"out={out} exists already; choose another, or remove it")
    choices = Choices(**{f.name: options[f.name] for f in fields(Choices) if f.name in options})
    wanted = None if options["dtype"] is None else _DTYPES[options["dtype"]]
    loaded = layout_of(source).load(source, choices, lambda model: _require_room(model, wanted))
    dtype = wanted or _stored(loaded.model)
    try:
        native.save(out, loaded.model, loaded.robots or loaded.processing, loaded.tokenizer, loaded.training, dtype)
    except OSError as error:
        raise InputError(f"cannot write out={out}: {error.strerror}") from error
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    return Written(out, native.families.name_of(loaded.model), count, dtype)


def _require_room(model: torch.nn.Module, dtype: torch.dtype | None) -> None:
    """What is cast needs memory of its own; what is not is written from where it lies."""
    if dtype is not None:
        require_room(model, torch.device("cpu"), dtype)


def _stored(model: torch.nn.Module) -> torch.dtype:
    """What the tensors are in, without a diffusion head."""
    found = {p.dtype for name, p in model.named_parameters() if not name.startswith(f"{KEPT_EXACT}.")}
    return found.pop() if len(found) == 1 else torch.float32


def _check_kinds(options: dict[str, Any]) -> None:
    """Refuse what would be a traceback later."""
    for key in ("checkpoint", "out", "dataset", "camera", "rotation"):
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
