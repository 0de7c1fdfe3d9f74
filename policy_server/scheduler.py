"""What the policy does next, and for whom: turns, batches, and what it must forget (no zmq)."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

from policy_server.mailbox import Mailbox, Request
from policy_server.sessions import Sessions
from policy_server.tally import Load
from policy_server.worker import Result, Worker
from vla.api import BatchPolicy, InputError, Policy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batching:
    """How many observations the policy answers at once.

    Attributes:
        max_batch: most observations in one call; 1 is one at a time.
        max_wait_ms: how long an idle policy lets an observation wait for others to come.

    Raises:
        InputError: on a value outside its range.
    """

    max_batch: int = 1
    max_wait_ms: float = 0.0

    def __post_init__(self) -> None:
        size, wait = self.max_batch, self.max_wait_ms
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"max_batch must be a whole number of at least 1, got {size!r}")
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait < math.inf:
            raise InputError(f"max_wait_ms must be a number of at least 0, got {wait!r}")


class Scheduler:
    """Keeps one policy busy with the requests of many clients; used by one thread at a time.

    Args:
        policy: what answers.
        ended: called, in the policy's thread, when `take_finished` has something.
        batching: how many observations the policy answers at once.
        idle: [s] after which the policy forgets a session that nobody uses.

    Raises:
        InputError: on batching with a policy that has no `infer_batch`.
    """

    def __init__(self, policy: Policy, ended: Callable[[], None], batching: Batching, idle: float) -> None:
        if batching.max_batch > 1 and not isinstance(policy, BatchPolicy):
            raise InputError(f"{policy.spec.model} answers one observation at a time: max_batch must be 1")
        self._batching = batching
        self._mailbox = Mailbox()
        self._sessions = Sessions(idle)
        self._worker = Worker(policy, ended)

    @property
    def busy(self) -> bool:
        """Whether the policy runs, or has ended and the results were not taken."""
        return self._worker.job is not None

    def put(self, request: Request) -> Request | None:
        """Let a request wait; returns the older request that it supersedes.

        Raises:
            WireError: `overloaded`, if too many wait.
        """
        return self._mailbox.put(request)

    def patience(self, now: float) -> int | None:
        """[ms] after which `start_next` is to be called although nothing came; None is never."""
        due = math.inf if self.busy else min(self._sessions.due(), self._batch_due())
        return None if due == math.inf else math.ceil(max(0.0, 1000 * (due - now)))

    def start_next(self, now: float) -> list[Request]:
        """Give an idle policy its next requests, or something to forget.

        Returns:
            the requests that came too late for their senders; the policy never sees them.
        """
        if self.busy:
            return []
        late = self._mailbox.take_expired(now)
        requests = self._mailbox.take(self._batching.max_batch) if now >= self._batch_due() else []
        foreign = [r.session for r in requests if self._sessions.is_foreign(r.session, r.client)]
        forget = [*foreign, *self._sessions.take_idle(now)]
        if requests or forget:
            self._worker.start(requests, forget, now)
        return late

    def take_finished(self, now: float) -> list[tuple[Request, Result]]:
        """The requests of a job that has ended, once, each with its result."""
        job = self._worker.take()
        if job is None:
            return []
        results = job.results()
        if job.forgetting_failed:
            for session in job.forget:
                self._sessions.used(session, b"", now)
        for request, result in zip(job.requests, results, strict=True):
            self._remember(request, result, now)
        return list(zip(job.requests, results, strict=True))

    def withdraw(self) -> list[Request]:
        """All requests that wait; they no longer do."""
        return self._mailbox.take_all()

    def state(self) -> Load:
        """What there is to do now."""
        waiting = [request.arrived for request in self._mailbox]
        job = self._worker.job
        return Load(None if job is None else job.started, min(waiting, default=None), len(waiting), len(self._sessions))

    def load(self, now: float) -> dict[str, object]:
        """What `health` says: how long the policy has been running [ms], what waits, and whose memory it holds."""
        job = self._worker.job
        busy = None if job is None else 1000 * (now - job.started)
        return {"busy_ms": busy, "pending": len(self._mailbox), "sessions": len(self._sessions)}

    def close(self) -> None:
        """Wait for the running job; then nothing may be started."""
        self._worker.close()

    def _batch_due(self) -> float:
        """[s] when the waiting requests are no longer held back for others to join them."""
        waiting = list(self._mailbox)
        if not waiting:
            return math.inf
        oldest = min([request.arrived for request in waiting])
        full = len(waiting) >= self._batching.max_batch or any(request.is_reset for request in waiting)
        return oldest if full else oldest + self._batching.max_wait_ms / 1000

    def _remember(self, request: Request, result: Result, now: float) -> None:
        """Whose memory this session is now; nobody's if the policy failed halfway."""
        if request.is_reset and result is None:
            self._sessions.forgotten(request.session)
        else:
            failed = isinstance(result, Exception) and not isinstance(result, InputError)
            self._sessions.used(request.session, b"" if failed else request.client, now)
