"""What may stand in a message: the refusal of what may not, and the plain values that may (no numpy)."""

import math
import re
from collections.abc import Callable, Mapping, Sized
from typing import Any, TypeGuard

from vla.api import InputError

MAX_NAME = 256
MAX_INTEGER = 2**63 - 1
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of characters
NAME = f"text of at most {MAX_NAME} characters without control characters or halves of surrogate pairs"


class WireError(InputError):
    """A message that this protocol does not allow.

    Attributes:
        type: one of the error types of the specification.
        hint: what to do about it.
        seq: of the offending message, 0 if it could not be read.
    """

    def __init__(self, message: str, type: str = "malformed", hint: str = "", seq: int = 0) -> None:  # noqa: A002
        super().__init__(message)
        self.type = type
        self.hint = hint
        self.seq = seq


def is_number(value: object) -> bool:
    """Whether this is a finite JSON number (true and false are not)."""
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) <= MAX_INTEGER


def is_integer(value: object) -> bool:
    """Whether this is a JSON integer from 0 to 2^63 - 1 (true and false are not)."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


def are_sizes(values: list[Any]) -> bool:
    """Whether all of these are integers as `is_integer` means them."""
    return {int}.issuperset(map(type, values)) and (not values or 0 <= min(values) <= max(values) <= MAX_INTEGER)


def is_name(value: object) -> bool:
    """Whether this is text of at most `MAX_NAME` characters that every file can hold and no terminal obeys."""
    return isinstance(value, str) and len(value) <= MAX_NAME and _UNFIT.search(value) is None


def is_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether this maps keys to values; a dict, as JSON gives, is recognised without asking an abstract class."""
    return isinstance(value, dict) or isinstance(value, Mapping)  # noqa: SIM101 - the first is quick


def require(condition: bool, message: str | Callable[[], str]) -> None:
    """Refuse a message unless the condition holds; one that costs more than the check is made only when it is needed.

    Raises:
        WireError: `malformed`.
    """
    if not condition:
        raise WireError(message if isinstance(message, str) else message())


def show(value: object) -> str:
    """A value for an error message: never long, and safe to print whatever it holds."""
    text = ascii(value)
    return text if len(text) <= 200 else text[:200] + " ..."


def brief(value: object) -> str:
    """A value of any size for an error message, at the cost of a short one: what it is rather than what it holds."""
    if isinstance(value, str):
        return show(value[:200])
    if value is None or isinstance(value, bool | int | float):
        return show(value)
    size = f" of {len(value)}" if isinstance(value, Sized) else ""
    return f"{type(value).__name__}{size}"
