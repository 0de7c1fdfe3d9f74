"""What can go wrong with a world that a user asked for."""

from collections.abc import Iterable


class EnvError(ValueError):
    """Bad input to the world: the message says what came, what is allowed and what to do."""


class UnknownNameError(EnvError):
    """A task, robot, camera or variant that does not exist; the message lists those that do."""

    def __init__(self, kind: str, name: object, allowed: Iterable[str]) -> None:
        self._arguments = (kind, name, tuple(sorted(allowed)))
        super().__init__(f"unknown {kind} {name!r}; allowed: {', '.join(self._arguments[2])}")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # travels between processes
        return type(self), self._arguments


class RenderingError(EnvError):
    """No OpenGL context could be made, so no camera image can be drawn."""
