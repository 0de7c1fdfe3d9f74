"""What can go wrong with a world that a user asked for."""

import os
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
    """There is no OpenGL, so no camera image can be drawn."""

    @classmethod
    def because(cls, cause: Exception) -> "RenderingError":
        """Say what failed and what to install."""
        backend = os.environ.get("MUJOCO_GL", "the default")
        return cls(
            f"MuJoCo cannot draw with MUJOCO_GL={backend} ({cause}); install Mesa's EGL library (Debian and Ubuntu: "
            "apt-get install libegl1 libgl1-mesa-dri) and set MUJOCO_GL=egl; cadence-doctor shows what is found"
        )
