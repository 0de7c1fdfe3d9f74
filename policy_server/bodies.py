"""Reads the values in a message's body; what is not the specification's is refused (no numpy).

Every function raises WireError.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from policy_server.checks import NAME, WireError, is_mapping, is_name, is_number
from vla.api import Camera, InputError, Quantity

T = TypeVar("T")


def read_object(what: str, value: object, *keys: str) -> Mapping[str, Any]:
    """An object with exactly these keys."""
    if not is_mapping(value) or len(value) != len(keys) or not all(key in value for key in keys):
        got = sorted(value) if isinstance(value, Mapping) else type(value).__name__
        raise WireError(f"{what} needs exactly the keys {list(keys)}, got {str(got)[:200]!a}")
    return value


def read_text(name: str, value: object) -> str:
    """A short text."""
    if not isinstance(value, str) or not is_name(value):
        raise WireError(f"{name} must be {NAME}, got {str(value)[:200]!a}")
    return value


def read_texts(name: str, value: object) -> list[str]:
    """A list of short texts."""
    if not isinstance(value, list):
        raise WireError(f"{name} must be a list of texts, got {str(value)[:200]!a}")
    return [read_text(name, item) for item in value]


def read_positive(name: str, value: object) -> float:
    """A number above 0."""
    if not is_number(value) or not value > 0:  # pyright: ignore[reportOperatorIssue]
        raise WireError(f"{name} must be positive, got {str(value)[:200]!a}")
    return float(value)  # pyright: ignore[reportArgumentType]


def read_rows(name: str, value: object, *types: type) -> list[list[Any]]:
    """A list of lists with values of these types."""
    allowed = isinstance(value, list) and all(isinstance(row, list) and [*map(type, row)] == [*types] for row in value)
    if not allowed:
        raise WireError(f"{name} must be a list of [{', '.join(t.__name__ for t in types)}], got {str(value)[:200]!a}")
    return value  # pyright: ignore[reportReturnType]


def read_cameras(value: object) -> tuple[Camera, ...]:
    """A list of [name, height, width]."""
    rows = read_rows("cameras", value, str, int, int)
    return built(lambda: tuple(Camera(*row) for row in rows))


def read_quantities(name: str, value: object) -> tuple[Quantity, ...]:
    """A list of [name, unit]."""
    return tuple(Quantity(*row) for row in read_rows(name, value, str, str))


def built(build: Callable[[], T]) -> T:
    """What `build` makes, its refusal turned into one of the wire."""
    try:
        return build()
    except InputError as error:
        raise WireError(str(error)) from None
