"""What options of decoders may be, and which models they fit."""

import math
from typing import Any

from vla.api import InputError


def check_whole(method: str, name: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse what is not a whole number within its range.

    Raises:
        InputError: naming the option, its value and its range.
    """
    inside = isinstance(value, int) and not isinstance(value, bool) and least <= value
    if not inside or (most is not None and value > most):
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"decoding={method}: {name} must be a whole number {allowed}, got {value!r}")


def check_relax(method: str, value: Any) -> None:
    """Refuse a tolerance in bins that is none."""
    check_whole(method, "relax", value, least=0)


def check_positive(method: str, name: str, value: Any, most: float = math.inf) -> None:
    """Refuse what is not a number in (0, `most`].

    Raises:
        InputError: naming the option, its value and its range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        allowed = "above 0" if most == math.inf else f"in (0, {most:g}]"
        raise InputError(f"decoding={method}: {name} must be a number {allowed}, got {value!r}")


def needs_mask(model: Any) -> str | None:
    """Why a decoder that fills in blocks does not fit a model; None if it does."""
    if model.config.mask_word is not None:
        return None
    return (
        "its checkpoint has no mask word, so it cannot fill in blocks; it can be decoded with autoregressive or "
        "jacobi, or be converted: cadence-train objective=block_diffusion from=<checkpoint>"
    )


def check_block(
    size: int | None, model: Any, name: str = "block", most: int | None = None, whole_actions: bool = False
) -> str | None:
    """Why blocks of so many words do not fit a model; None if they do, or if none are given.

    Args:
        size: words in a block.
        model: says chunks.
        name: of the option.
        most: largest that is allowed; None: a chunk.
        whole_actions: whether a block must have whole actions.
    """
    if size is None:
        return None
    words, numbers = int(model.config.words), int(model.config.action_dim)
    most = most or words
    least = numbers if whole_actions else 2
    if isinstance(size, bool) or not isinstance(size, int) or not least <= size <= most:
        chunk = f"a chunk has {model.config.horizon} actions of {numbers} words"
        return f"{name} must be a whole number from {least} to {most} ({chunk}), got {size!r}"
    if whole_actions and size % numbers:
        return f"{name} must be a multiple of {numbers}, the words of an action, got {size}"
    return None
