"""The server's door: which connections may speak at all, asked before a word of theirs is read (zmq only)."""

import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from policy_server.notices import Notices
from policy_server.security import ServerKeys, read_allowed
from policy_server.sockets import readable

log = logging.getLogger(__name__)

DOMAIN = b"cadence"
ZAP = "inproc://zeromq.zap.01"
HANDSHAKES = "inproc://handshakes"
FAILURES = {  # why a handshake failed -> how the client came, and what it needs
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: ("without keys", "it needs a key pair and this server's public key"),
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: ("with another server's public key", "it needs this server's"),
}
OTHER = ("that hung up", "it has no keys, or does not speak ZeroMQ")
FAILED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


def guard(router: "zmq.Socket[bytes]", keys: ServerKeys | None) -> "Doorkeeper | None":
    """Protect a socket that is not bound yet, and who is to answer for it; None if there are no keys."""
    if keys is None:
        return None
    router.curve_server = True
    router.curve_publickey, router.curve_secretkey = keys.pair.public, keys.pair.secret
    router.zap_domain = DOMAIN
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return Doorkeeper(router, keys.clients)


class Doorkeeper:
    """Lets in the clients whose keys are in the folder, and logs who is turned away; belongs to the thread that polls.

    Args:
        router: the server's socket, not bound yet.
        clients: folder of public keys.
        clock: [s], for the log's sake.

    Attributes:
        sockets: to poll; call `look` when one is readable.
    """

    def __init__(self, router: "zmq.Socket[bytes]", clients: Path, clock: Callable[[], float] = monotonic) -> None:
        self._questions = router.context.socket(zmq.REP)
        self._questions.linger = 0
        self._questions.bind(ZAP)
        router.monitor(HANDSHAKES, FAILED)
        self._failures = router.context.socket(zmq.PAIR)
        self._failures.rcvhwm = 0  # whoever connects must never wait for this thread
        self._failures.connect(HANDSHAKES)
        self.sockets = (self._questions, self._failures)
        self._clients = clients
        self._clock = clock
        self._notices = Notices(log)

    def look(self) -> None:
        """Answer every question that waits, and hear of every handshake that failed."""
        while readable(self._questions):
            self._answer()
        while readable(self._failures):
            how, remedy = FAILURES.get(recv_monitor_message(self._failures)["value"], OTHER)
            self._notices.record(f"turned away a client {how}", self._clock(), remedy)

    def close(self) -> None:
        """Let nobody in any more."""
        for socket in self.sockets:
            socket.close()

    def _answer(self) -> None:
        version, request, domain, address, _, mechanism, *credentials = self._questions.recv_multipart()
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and domain == DOMAIN else b""
        name = self._allowed().get(key)
        if name is None:
            detail = f"{key.decode()!a} from {address.decode()!a}"
            self._notices.record("turned away a client with an unknown key", self._clock(), detail)
        verdict = (b"400", b"unknown key", b"") if name is None else (b"200", b"OK", name.encode(errors="replace"))
        self._questions.send_multipart([version, request, *verdict, b""])

    def _allowed(self) -> dict[bytes, str]:
        """The list as it is now; a file that cannot be read lets in nobody, and shuts out nobody else."""
        allowed, wrong = read_allowed(self._clients)
        if wrong:
            self._notices.record("skipped a client's public key", self._clock(), "; ".join(map(str, wrong)))
        return allowed
