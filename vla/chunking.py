"""Action chunk -> one action per control step (numpy only).

A control loop asks `needs_chunk(step)`, adds the chunk it got for that step, and executes `action(step)`; steps count
from 0 and `reset` starts a new episode.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vla.api import ActionChunk, InputError


class Chunking(Protocol):
    """How a control loop turns chunks into actions."""

    def needs_chunk(self, step: int) -> bool:
        """Whether the policy must be asked before `action(step)`."""
        ...

    def add(self, step: int, chunk: ActionChunk) -> None:
        """Take the chunk that answers the observation of this step: its row i is meant for step + i.

        Raises:
            InputError: if the chunk has fewer rows than this way of executing needs.
        """
        ...

    def action(self, step: int) -> NDArray[np.float32]:
        """The action (A,) to execute at this step."""
        ...

    def reset(self) -> None:
        """Forget all chunks."""
        ...


@dataclass
class OpenLoop:
    """Execute the first `execute` rows of a chunk, then ask for the next.

    Args:
        execute: rows to execute of each chunk; 1 asks the policy at every step.
    """

    execute: int
    _start: int = field(default=0, init=False, repr=False)
    _chunk: ActionChunk | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.execute < 1:
            raise InputError(f"execute must be at least 1 row of each chunk, got {self.execute}")

    def needs_chunk(self, step: int) -> bool:
        """Whether the rows to execute are used up."""
        return self._chunk is None or not self._start <= step < self._start + self.execute

    def add(self, step: int, chunk: ActionChunk) -> None:
        """Replace the chunk; row 0 is for `step`."""
        _check_rows("execute", self.execute, chunk)
        self._start, self._chunk = step, chunk

    def action(self, step: int) -> NDArray[np.float32]:
        """The row of the newest chunk that is meant for this step, (A,)."""
        assert self._chunk is not None, "add a chunk when needs_chunk says so"
        assert not self.needs_chunk(step), "add a chunk when needs_chunk says so"
        return self._chunk.actions[step - self._start]

    def reset(self) -> None:
        """Forget the chunk."""
        self._start, self._chunk = 0, None


@dataclass
class AdaptiveEnsemble:
    """Average what the newest chunks say about this step, weighing those that agree with the newest one more.

    The policy is asked at every step; weights are exp(alpha * cosine similarity with the newest prediction)
    (CogACT, 2024, section 3.4).

    Args:
        horizon: chunks to remember: 7 on WidowX, 2 on Google Robot.
        alpha: 0 averages evenly; larger trusts agreement more.
    """

    horizon: int = 7
    alpha: float = 0.1
    _chunks: deque[tuple[int, ActionChunk]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise InputError(f"horizon must remember at least 1 chunk, got {self.horizon}")
        if not (self.alpha >= 0 and np.isfinite(self.alpha)):
            raise InputError(f"alpha must be a finite number from 0, got {self.alpha}")
        self._chunks = deque(maxlen=self.horizon)

    def needs_chunk(self, step: int) -> bool:
        """Whether the chunk of this step is still missing."""
        return not self._chunks or self._chunks[-1][0] != step

    def add(self, step: int, chunk: ActionChunk) -> None:
        """Remember a chunk, forgetting the oldest."""
        _check_rows("horizon", self.horizon, chunk)
        self._chunks.append((step, chunk))

    def action(self, step: int) -> NDArray[np.float32]:
        """The weighted mean of the remembered predictions for this step, (A,)."""
        assert not self.needs_chunk(step), "add a chunk when needs_chunk says so"
        rows = [chunk.actions[step - start] for start, chunk in self._chunks if 0 <= step - start < len(chunk.actions)]
        predictions = np.stack(rows).astype(np.float64)  # (chunks, A), the newest last
        lengths = np.linalg.norm(predictions, axis=1)
        cosine = predictions @ predictions[-1] / (lengths * lengths[-1] + 1e-7)
        weights = np.exp(self.alpha * cosine)
        return (weights @ predictions / weights.sum()).astype(np.float32)

    def reset(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()


def _check_rows(what: str, needed: int, chunk: ActionChunk) -> None:
    if needed > len(chunk.actions):
        raise InputError(f"{what} is {needed}, but the policy's chunks have only {len(chunk.actions)} rows")
