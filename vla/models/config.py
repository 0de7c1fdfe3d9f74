"""What all model configs have in common: plain values that are checked when built and survive JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from vla.api import InputError

_Config = TypeVar("_Config", bound="ModelConfig")


def optional(default: Any) -> Any:
    """A field that a checkpoint need not name: left out, it has its default, and at its default it is left out."""
    return field(default=default, metadata={"optional": True})


@dataclass(frozen=True)
class ModelConfig:
    """Base of the dataclasses that decide the shapes of a model."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        at_default = {f.name for f in fields(self) if f.metadata and getattr(self, f.name) == f.default}
        return {name: value for name, value in asdict(self).items() if name not in at_default}

    @classmethod
    def from_dict(cls: type[_Config], values: Mapping[str, Any]) -> _Config:
        """The inverse of `to_dict`.

        Raises:
            InputError: naming every key that is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        required = {f.name for f in fields(cls) if not f.metadata}
        unknown, missing = sorted(values.keys() - known), sorted(required - values.keys())
        if unknown or missing:
            raise InputError(f"model config: unknown keys {unknown}, missing keys {missing}; known: {sorted(known)}")
        return cls(**values)


def check_whole(name: str, value: object, least: int) -> None:
    """Refuse what is not an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Refuse a value that is not a multiple of its divisor."""
    if value % divisor:
        raise InputError(f"{name} must be a multiple of {divisor_name}: {value} is not a multiple of {divisor}")
