"""Checks of options, and numbers that may be given as a share of something."""

from collections.abc import Sequence
from typing import Any

from vla.api import InputError

ALL = "all"


def check_choice(method: str, name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Refuse what is not one of a few."""
    if value not in allowed:
        raise InputError(f"tokens={method}: {name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def check_range(method: str, name: str, value: Any, low: float, high: float) -> None:
    """Refuse what is not a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(f"tokens={method}: {name} must be a number from {low} to {high}, got {value!r}")


def check_count(method: str, name: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"tokens={method}: {name} must be a whole number of at least {least}, got {value!r}")


def check_flag(method: str, name: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise InputError(f"tokens={method}: {name} must be true or false, got {value!r}")


def check_amount(method: str, name: str, value: Any, least: int = 0) -> None:
    """Refuse what is neither a whole number of at least `least`, nor a share between 0 and 1, nor "all"."""
    share = isinstance(value, float) and 0 < value <= 1
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
    if not (share or whole or value == ALL):
        raise InputError(
            f"tokens={method}: {name} must be a whole number of at least {least}, a share above 0.0 and up to 1.0, "
            f"or {ALL}; got {value!r}"
        )


def amount(value: Any, total: int) -> int:
    """How many of `total` an amount is; a share is rounded down, but never to nothing."""
    if value == ALL:
        return total
    return max(1, int(value * total + 1e-9)) if isinstance(value, float) else value


def layer_number(method: str, value: Any, depth: int) -> int:
    """The language layer in front of which a method acts; it needs one layer before it, so it is at least 1.

    Raises:
        InputError: if the model has no such layer.
    """
    number = min(amount(value, depth), depth - 1) if isinstance(value, float) else value
    if not 1 <= number < depth:
        allowed = f"1 to {depth - 1}" if depth > 1 else "none"
        raise InputError(f"layer {number} is not one that {method} can act in front of; this model allows {allowed}")
    return number
