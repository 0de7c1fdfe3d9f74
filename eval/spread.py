"""On how many processes and machines an evaluation runs, and how they share a policy: checked when built."""

import math
import os
import re
from dataclasses import dataclass

from vla.api import InputError

RAY = "ray"  # cluster=ray: the Ray cluster that this machine belongs to
_ADDRESS = re.compile(r"(ray://)?[^\s/:]+:\d{1,5}")


class WorkerLost(RuntimeError):
    """Whoever ran an episode is gone; the message says how."""


@dataclass(frozen=True)
class Spread:
    """How the episodes of one evaluation are spread; never what they show, beyond the rounding of batches.

    Attributes:
        workers: processes that simulate, on each machine of a cluster.
        max_batch: most workers answered in one call of the model, for policy=served; None: all of them.
        max_wait_ms: how long an idle model lets one worker wait for the others.
        cluster: None: this machine; `ray`, `ray://host:port` or `host:port`: a Ray cluster.
        replicas: groups of workers in the cluster, each with a policy of its own; None: as many as fit.

    Raises:
        InputError: naming the key, what came and what is allowed.
    """

    workers: int = 1
    max_batch: int | None = None
    max_wait_ms: float = 0.0
    cluster: str | None = None
    replicas: int | None = None

    def __post_init__(self) -> None:
        _whole("workers", self.workers)
        for name in ("max_batch", "replicas"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name))
        wait = self.max_wait_ms
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < math.inf:
            raise InputError(f"max_wait_ms must be a number of at least 0, got {wait!r}")
        if self.cluster is not None and not (
            isinstance(self.cluster, str) and (self.cluster == RAY or _ADDRESS.fullmatch(self.cluster))
        ):
            raise InputError(f"cluster must be null, ray, ray://host:port or host:port, got {self.cluster!r}")
        if self.replicas is not None and self.cluster is None:
            raise InputError(f"replicas={self.replicas} needs a cluster, for example cluster=ray")

    @property
    def alone(self) -> bool:
        """Whether one process does everything but the model."""
        return self.workers == 1 and self.cluster is None

    @property
    def batch(self) -> int:
        """Most observations in one call of the model."""
        return self.max_batch or self.workers

    def server_threads(self, asked: int | None, device: str) -> int | None:
        """Threads of the model's process: as asked, else on the processor those that the workers leave, at least 1."""
        if asked is not None or self.alone or device != "cpu":
            return asked
        return max(1, (os.cpu_count() or 1) - self.workers)


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
