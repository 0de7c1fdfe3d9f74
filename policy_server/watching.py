"""Watching a server: what is told about every answer, and how it is kept off the server's threads (no zmq)."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from policy_server.mailbox import Request
from policy_server.tally import RESET, Tally
from vla.api import ActionChunk, Observation

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Answered:
    """An observation and what was answered; a chunk of None says that the session was reset.

    Attributes:
        client: the connection.
        session: of this client.
        observation: as the policy saw it, images unpacked; None for a reset.
        chunk: the answer.
    """

    client: bytes
    session: str
    observation: Observation | None = None
    chunk: ActionChunk | None = None

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        images = 0 if self.observation is None else sum(image.nbytes for image in self.observation.images.values())
        return images + (0 if self.chunk is None else self.chunk.actions.nbytes)


class Watcher(Protocol):
    """Is told about every answer, by a thread of the server's: `saw` must return at once and never raise."""

    def saw(self, event: Answered) -> None: ...

    def report(self) -> Mapping[str, Any]:
        """What became of it; `name` says who, the other values are numbers or text."""
        ...

    def close(self) -> None:
        """Finish what was begun."""
        ...


class Monitor:
    """Counts what becomes of every request and tells the watchers; used by one thread at a time.

    Args:
        watchers: to tell about every answer.
    """

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self.tally = Tally()
        self._watchers = tuple(watchers)

    def replied(self, request: Request, chunk: ActionChunk | None, stages: Mapping[str, float]) -> None:
        """A request is answered; of a reset, `chunk` is None."""
        if chunk is None:
            self.tally.counted(RESET)
        else:
            timing = {**chunk.timing, **stages}
            self.tally.answered(request.session, timing, request.message.deadline_ms, perf_counter())
        if not self._watchers:
            return
        event = Answered(request.client, request.session, request.observation, chunk)
        for watcher in self._watchers:
            watcher.saw(event)

    def body(self) -> dict[str, Any]:
        """Of a reply to `metrics`."""
        return self.tally.snapshot().body([watcher.report() for watcher in self._watchers])


class Behind:
    """A Watcher that works in a thread of its own, behind a queue that never grows beyond `room`.

    What does not fit is dropped and counted: a slow disk must not slow a robot. If the work fails, it is logged once,
    and nothing more is done.

    Args:
        name: who, for the log and the thread.
        work: called with each event; None, once, when it is closed.
        room: bytes of observations that may wait.
        idle: [s] after which `rest` is called when nothing came.
        rest: called when nothing came for a while.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Answered | None], None],
        room: int = 64 * 2**20,
        idle: float = 10.0,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._work, self._room, self._idle, self._rest = name, work, room, idle, rest
        self._waiting: deque[Answered] = deque()
        self._held = 0
        self._done = self._dropped = 0
        self._failed = ""
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def saw(self, event: Answered) -> None:
        """Let it wait for the thread, or drop it; returns at once."""
        size = event.bytes
        with self._changed:
            full = self._held + size > self._room and event.observation is not None
            if full or self._failed:
                self._dropped += 1
                if self._dropped == 1:
                    log.warning("%s cannot keep up: observations are dropped from now on, see the metrics", self._name)
                return
            self._waiting.append(event)
            self._held += size
            self._changed.notify()

    def report(self) -> dict[str, Any]:
        """How many events were worked off, dropped and wait, and why it failed."""
        with self._changed:
            waiting = len(self._waiting)
            return {
                "name": self._name,
                "done": self._done,
                "dropped": self._dropped,
                "waiting": waiting,
                "failed": self._failed,
            }

    def close(self) -> None:
        """Work off what waits, then finish."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._waiting or not self._closing:
                event = self._next()
                if event is None:
                    self._rest()
                else:
                    self._work(event)
                    self._done += 1
            self._work(None)
        except Exception as error:
            with self._changed:
                self._failed = f"{type(error).__name__}: {error}"[:300]
                self._waiting.clear()
                self._held = 0
            log.exception("%s failed and has ended; the server goes on without it", self._name)

    def _next(self) -> Answered | None:
        """The next event, or None if none came for a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing, self._idle)
            if not self._waiting:
                return None
            event = self._waiting.popleft()
            self._held -= event.bytes
            return event
