"""What a server does not do: counted, logged at a bounded rate, and said to the client (no zmq)."""

import logging
from collections.abc import Callable
from time import perf_counter

from policy_server.checks import WireError
from policy_server.messages import failure
from policy_server.notices import Notices
from policy_server.tally import Tally
from policy_server.wire import Message
from vla.api import InputError

log = logging.getLogger(__name__)


class Refusals:
    """Makes error replies; clients that send nonsense all day fill neither the log nor anything else.

    Args:
        tally: counts them by error type.
        clock: [s], for the log's sake.
    """

    def __init__(self, tally: Tally, clock: Callable[[], float] = perf_counter) -> None:
        self._tally = tally
        self._clock = clock
        self._notices = Notices(log)

    def reply(self, error: Exception, seq: int, session: str) -> Message:
        """The error reply to a message; a failure, which is the policy's or ours, is logged with its traceback."""
        if isinstance(error, WireError):
            kind, text, hint, seq = error.type, str(error), error.hint, error.seq or seq
        elif isinstance(error, InputError):
            kind, text, hint = "input", str(error), ""
        else:
            kind, text, hint = "internal", f"{type(error).__name__}: {error}", "the server's log has the traceback"
        self._tally.counted(kind)
        where = {"type": kind, "session": session, "seq": seq}
        if kind == "internal":
            detail = f"request {seq} of session {session!a}"
            self._record(f"failed with {type(error).__name__}", detail, logging.ERROR, exc_info=error, extra=where)
        else:
            self._record(f"refused as {kind}", text, logging.INFO, extra=where)
        return failure(kind, text, hint, seq, session)

    def undelivered(self, client: bytes) -> None:
        """A client has left, or does not read its answers."""
        self._record("could not send an answer", f"client {client!a} has left or does not read", logging.INFO)

    def _record(self, kind: str, detail: str, level: int, **options: object) -> None:
        self._notices.record(kind, self._clock(), detail, level, **options)
