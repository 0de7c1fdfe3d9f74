"""Where a model is computed and in which numbers, and whether the device is made for them."""

import logging

import torch

from vla.api import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp32": torch.float32, "bf16": torch.bfloat16}
AUTO = "auto"
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # of processors that multiply bfloat16 numbers

log = logging.getLogger(__name__)


def find_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        InputError: if it is not there, listing what is.
    """
    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if name not in there:
        raise InputError(f"device={name!r} is not there; this machine has: {', '.join(there)}")
    return torch.device(name)


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of this name; `auto` is bfloat16 where the device multiplies such numbers, else float32.

    bfloat16 on a processor that does not is possible: it takes half the memory of float32, and more time. That is
    logged.

    Raises:
        InputError: on an unknown name, or what a GPU does not have, listing what there is.
    """
    if name == AUTO:
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise InputError(f"unknown dtype {name!r}; allowed: {', '.join(DTYPES)}, {AUTO}")
    if DTYPES[name] == torch.bfloat16 and not multiplies_bfloat16(device):
        if device.type == "cuda":
            raise InputError(f"dtype={name}: {torch.cuda.get_device_name(device)} has no bfloat16; use dtype=float32")
        log.warning(
            "dtype=%s: this processor has no instructions for bfloat16, so it takes longer than float32, in half the "
            "memory; dtype=%s chooses what the device is made for",
            name,
            AUTO,
        )
    return DTYPES[name]


def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether the device has instructions for products of bfloat16 numbers."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    there = torch.cpu.get_capabilities()
    return any(there.get(name) for name in _INSTRUCTIONS)
