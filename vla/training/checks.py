"""Kinds and ranges of training options, refused by name before any work starts."""

import math
from typing import Any

from vla.api import InputError


def require_kind(name: str, value: Any, kind: type, wanted: str) -> None:
    """Refuse a value that is not of this kind; `wanted` says it in words.

    Raises:
        InputError: naming the option and its value.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} must be {wanted}, got {value!r}")


def require_whole(name: str, value: Any, least: int) -> None:
    """Refuse everything but whole numbers of at least `least` that 63 bits hold.

    Raises:
        InputError: naming the option and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")


def require_number(name: str, value: Any, below: float = math.inf) -> None:
    """Refuse everything but numbers in [0, `below`).

    Raises:
        InputError: naming the option and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below:
        raise InputError(f"{name} must be a number in [0, {below}), got {value!r}")


def require_texts(name: str, value: Any) -> None:
    """Refuse everything but lists of at least one text.

    Raises:
        InputError: naming the option and its value.
    """
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise InputError(f"{name} must be a list of names, got {value!r}")
