"""Action chunk -> one action per control step (numpy only).

A control loop asks `needs_chunk(step)`, adds the chunk it got for that step, and executes `action(step)`; steps count
executed actions from 0 and `reset` starts a new episode. A chunk may come late: while `has_action(step)` the loop goes
on, otherwise the robot holds and the step does not advance.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vla.api import ActionChunk, InputError

if TYPE_CHECKING:
    from vla.averaging import Averaging

NO_ACTION = "there is no action for this step: add a chunk first"


class Chunking(Protocol):
    """How a control loop turns chunks into actions."""

    def needs_chunk(self, step: int) -> bool:
        """Whether the policy should be asked at this step."""
        ...

    def has_action(self, step: int) -> bool:
        """Whether the chunks that came say what to do at this step."""
        ...

    def check(self, rows: int) -> None:
        """Refuse a policy whose chunks have so many rows.

        Raises:
            InputError: if this way of executing needs more, saying what is allowed.
        """
        ...

    def add(self, step: int, chunk: ActionChunk) -> None:
        """Take the chunk that answers the observation of this step: its row i is meant for step + i.

        Raises:
            InputError: as `check`, if the chunk has too few rows.
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

    def has_action(self, step: int) -> bool:
        """Whether there are rows left to execute."""
        return not self.needs_chunk(step)

    def check(self, rows: int) -> None:
        """Refuse chunks of fewer rows than are executed of each."""
        _check_rows("execute", self.execute, rows)

    def add(self, step: int, chunk: ActionChunk) -> None:
        """Replace the chunk; row 0 is for `step`."""
        self.check(len(chunk.actions))
        self._start, self._chunk = step, chunk

    def action(self, step: int) -> NDArray[np.float32]:
        """The row of the newest chunk that is meant for this step, (A,)."""
        assert self._chunk is not None, NO_ACTION
        assert self.has_action(step), NO_ACTION
        return self._chunk.actions[step - self._start]

    def reset(self) -> None:
        """Forget the chunk."""
        self._start, self._chunk = 0, None


@dataclass
class AdaptiveEnsemble:
    """Average what the newest chunks say about this step, weighing those that agree with the newest one more.

    The policy is asked at every step, or as often as it answers; weights are exp(alpha * cosine similarity with the
    newest prediction) (CogACT, 2024, section 3.4).

    Args:
        horizon: chunks to remember: 7 on WidowX, 2 on Google Robot.
        alpha: 0 averages evenly; larger trusts agreement more.
        averaging: says which numbers are a rotation or a command, which CogACT averages in its own form; None: none.
    """

    horizon: int = 7
    alpha: float = 0.1
    averaging: "Averaging | None" = None
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

    def has_action(self, step: int) -> bool:
        """Whether a remembered chunk has a row for this step."""
        return any(0 <= step - start < len(chunk.actions) for start, chunk in self._chunks)

    def check(self, rows: int) -> None:
        """Refuse chunks of fewer rows than chunks are remembered: the oldest would say nothing any more."""
        _check_rows("horizon", self.horizon, rows)

    def add(self, step: int, chunk: ActionChunk) -> None:
        """Remember a chunk, forgetting the oldest."""
        self.check(len(chunk.actions))
        self._chunks.append((step, chunk))

    def action(self, step: int) -> NDArray[np.float32]:
        """The weighted mean of the remembered predictions for this step, (A,)."""
        assert self.has_action(step), NO_ACTION
        rows = [chunk.actions[step - start] for start, chunk in self._chunks if 0 <= step - start < len(chunk.actions)]
        if len(rows) == 1:
            return rows[0]
        stacked = np.stack(rows)  # (chunks, A), the newest last
        predictions = self.averaging.plain(stacked) if self.averaging else stacked.astype(np.float64)
        lengths = np.linalg.norm(predictions, axis=1)
        cosine = predictions @ predictions[-1] / (lengths * lengths[-1] + 1e-7)
        weights = np.exp(self.alpha * cosine)
        mean = weights @ predictions / weights.sum()
        return self.averaging.physical(mean, stacked) if self.averaging else mean.astype(np.float32)

    def reset(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()


class Committed(NamedTuple):
    """Actions that a new chunk must continue: those the robot executes while the policy thinks, and those after.

    Attributes:
        actions: (rows, A) float32 in physical units; row 0 is for the step of the observation.
        frozen: rows that will have been executed before the answer comes; a new chunk repeats them exactly.
    """

    actions: NDArray[np.float32]
    frozen: int


@dataclass
class RealTimeChunking:
    """Ask for the next chunk while this one runs, and let the next continue what is already committed.

    Real-time chunking (arXiv 2506.07339, algorithm 1). The delay to expect is the longest of the last `window`. An
    observation is made every `execute` steps, or every `delay` steps if that is more, and early enough that the chunk
    lasts until the answer. A policy that inpaints gets the rest of the chunk as `committed`; for any other, old and new
    actions are averaged with the same weights. Either way the first `frozen` rows are those of the old chunk.

    Args:
        execute: steps between observations, at least.
        window: delays to remember.
    """

    execute: int
    window: int = 10
    _start: int = field(default=0, init=False, repr=False)
    _actions: NDArray[np.float32] | None = field(default=None, init=False, repr=False)
    _asked: tuple[int, int, bool] = field(default=(-1, 0, False), init=False, repr=False)
    _delays: deque[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.execute < 1 or self.window < 1:
            raise InputError(f"execute and window must be at least 1, got {self.execute} and {self.window}")
        self._delays = deque(maxlen=self.window)

    @property
    def delay(self) -> int:
        """Control steps that the next answer is expected to take."""
        return max(self._delays, default=0)

    def delayed(self, steps: int) -> None:
        """Remember how many control steps an answer took; kept across episodes."""
        self._delays.append(steps)

    def needs_chunk(self, step: int) -> bool:
        """Whether it is time for the next observation."""
        if self._actions is None:
            return True
        stride = max(1, min(max(self.execute, self.delay), len(self._actions) - self.delay))
        return not self._start <= step < self._start + stride

    def has_action(self, step: int) -> bool:
        """Whether the chunk has a row for this step."""
        return len(self._rest(step)) > 0

    def committed(self, step: int, inpaints: bool) -> Committed | None:
        """What the answer to the observation of this step must continue; call it when the policy is asked.

        Args:
            step: of the observation.
            inpaints: whether the policy can; if not, `add` averages instead.

        Returns:
            None if the policy cannot inpaint or no action is left.
        """
        rest = self._rest(step)
        frozen = min(self.delay, len(rest))
        self._asked = step, frozen, inpaints
        return Committed(rest.copy(), frozen) if inpaints and len(rest) else None

    def check(self, rows: int) -> None:
        """Refuse chunks that end before the next observation is made."""
        _check_rows("execute", self.execute, rows)

    def add(self, step: int, chunk: ActionChunk) -> None:
        """Continue with this chunk; row 0 is for `step`. Rows that were frozen for it stay those of the old chunk."""
        self.check(len(chunk.actions))
        old = self._rest(step)[: len(chunk.actions)]
        continued = self._continued(step, old, chunk.actions.copy()) if len(old) else chunk.actions
        self._start, self._actions = step, continued

    def _continued(self, step: int, old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        """The new rows, led over from the rest of the old ones."""
        asked, frozen, conditioned = self._asked
        if asked != step:
            frozen, conditioned = 0, False
        if not conditioned:
            weights = prefix_weights(frozen, len(old), len(old))[:, None]  # (rows, 1)
            new[: len(old)] = weights * old + (1 - weights) * new[: len(old)]
        new[:frozen] = old[:frozen]
        return new

    def action(self, step: int) -> NDArray[np.float32]:
        """The chunk's row for this step, (A,)."""
        assert self.has_action(step), NO_ACTION
        return self._rest(step)[0]

    def reset(self) -> None:
        """Forget the chunk; measured delays stay."""
        self._start, self._actions, self._asked = 0, None, (-1, 0, False)

    def _rest(self, step: int) -> NDArray[np.float32]:
        """Rows for this step and later, (rows, A)."""
        if self._actions is None or step < self._start:
            return np.empty((0, 0), np.float32)
        return self._actions[step - self._start :]


def prefix_weights(frozen: int, committed: int, horizon: int) -> NDArray[np.float32]:
    """How much of each committed row a new chunk keeps (arXiv 2506.07339, eq. 5).

    Args:
        frozen: rows to keep exactly.
        committed: rows that are committed, from `frozen` to `horizon`; after `frozen` their weight decays.
        horizon: rows of the new chunk.

    Returns:
        (horizon,) in [0, 1]: 1 up to `frozen`, falling to 0 from `committed` on.

    Raises:
        InputError: unless 0 <= frozen <= committed <= horizon.
    """
    if not 0 <= frozen <= committed <= horizon:
        raise InputError(f"0 <= frozen <= committed <= horizon is needed, got {frozen}, {committed} and {horizon}")
    row = np.arange(horizon)
    left = (committed - row) / (committed - frozen + 1)
    decay = left * np.expm1(left) / math.expm1(1)
    return np.where(row < frozen, 1, np.where(row < committed, decay, 0)).astype(np.float32)


def _check_rows(what: str, needed: int, rows: int) -> None:
    if needed > rows:
        raise InputError(f"{what} is {needed}, but the policy's chunks have only {rows} rows: allowed are 1 to {rows}")
