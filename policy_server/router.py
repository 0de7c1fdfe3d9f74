"""The server's socket: where it may listen, and what bounds the memory and patience that it spends on a peer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from policy_server import sockets
from policy_server.arrays import MAX_MESSAGE_BYTES, Frame
from policy_server.peers import Exchange
from policy_server.ports import read_port
from policy_server.sockets import LOOPBACK
from policy_server.wire import Message
from vla.api import InputError

MAX_ENVELOPE = 8
LINGER_MS = 1000  # the last reply still leaves when the server stops
QUEUED_MESSAGES = 16  # per client and direction, inside ZeroMQ
HEARTBEAT_MS, SILENCE_MS = 5_000, 15_000  # a peer that vanished without a word is dropped, with what waits for it
ENDPOINT = re.compile(r"tcp://(?P<host>[^/]+):(?P<port>\*|[0-9]+)")


def check_endpoint(endpoint: str, protected: bool, insecure: bool) -> None:
    """Refuse what is no endpoint, and what other machines can reach without protection or consent.

    Args:
        endpoint: `tcp://host:port`.
        protected: whether messages are encrypted and clients known by their keys.
        insecure: consent to do without.

    Raises:
        InputError: saying what to do.
    """
    parts = ENDPOINT.fullmatch(endpoint)
    if parts is None:
        raise InputError(f"an endpoint is tcp://host:port, for example tcp://127.0.0.1:5555, got {endpoint!r}")
    if parts["port"] != "*":
        read_port(endpoint, parts["port"])
    if LOOPBACK.fullmatch(parts["host"]) is None and not (protected or insecure):
        raise InputError(
            f"{endpoint} can be reached from other machines, and nothing on the wire is encrypted or authenticated; "
            "serve at tcp://127.0.0.1:<port>, give keys=<file> and clients=<folder> (cadence-keys makes them), or say "
            "insecure=true on a network you trust"
        )


def new_router(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    """A ROUTER that is not bound yet."""
    router = context.socket(zmq.ROUTER)
    options = {
        zmq.ROUTER_MANDATORY: 1,
        zmq.LINGER: LINGER_MS,
        zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
        zmq.RCVHWM: QUEUED_MESSAGES,
        zmq.SNDHWM: QUEUED_MESSAGES,
        zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
        zmq.HEARTBEAT_TIMEOUT: SILENCE_MS,
        zmq.IPV6: int("[" in endpoint),
    }
    for option, value in options.items():
        router.setsockopt(option, value)
    return router


def bind(router: "zmq.Socket[bytes]", endpoint: str) -> str:
    """Listen; returns the endpoint with the port that was taken.

    Raises:
        InputError: if the endpoint is taken or this machine does not have its address.
    """
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            remedy = "the port is in use: stop the other server, choose another port, or port 0 for a free one"
        else:
            remedy = f"{error.strerror}: choose an address of this machine, for example tcp://127.0.0.1:0"
        raise InputError(f"cannot serve at {endpoint}: {remedy}") from None
    return router.getsockopt_string(zmq.LAST_ENDPOINT)


def check_free(endpoint: str) -> None:
    """Listen for a moment, before a policy is loaded for minutes in vain.

    Raises:
        InputError: as `bind`.
    """
    with zmq.Context() as context, new_router(context, endpoint) as router:
        bind(router, endpoint)


def send(router: "zmq.Socket[bytes]", frames: list[Frame]) -> bool:
    """Send without waiting; whether the message is on its way.

    ZeroMQ counts a client's queue by notices that the client's connection sends back, and reads these late: a ROUTER
    that is not mandatory takes a queue for full that is empty, and drops about one reply in 10,000 without a word.
    Asking for the socket's events reads the notices, so the second attempt fails only if the client does not read.
    """
    if _sent(router, frames):
        return True
    router.getsockopt(zmq.EVENTS)
    return _sent(router, frames)


def _sent(router: "zmq.Socket[bytes]", frames: list[Frame]) -> bool:
    try:
        sockets.send(router, frames, sockets.NOBLOCK)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno != zmq.EHOSTUNREACH:
            raise
        return False  # the client has left
    return True


@dataclass(frozen=True, eq=False)
class RouterPeer:
    """A client of the server's own socket.

    Attributes:
        router: the socket.
        envelope: frames before the delimiter, to send back unchanged; the first names the connection.
        exchange: the client's words.
    """

    router: "zmq.Socket[bytes]"
    envelope: list[bytes]
    exchange: Exchange

    @property
    def client(self) -> bytes:
        """Names the connection."""
        return self.envelope[0]

    def decode(self, frames: Sequence[Frame]) -> Message:
        """The request, as the exchange reads it."""
        return self.exchange.decode(frames)

    def encode(self, reply: Message) -> list[Frame]:
        """The reply, as the exchange says it."""
        return self.exchange.encode(reply)

    def send(self, frames: list[Frame]) -> bool:
        """Send without waiting; whether the reply is on its way."""
        return send(self.router, [*self.envelope, b"", *frames])


def opened(frames: Sequence[zmq.Frame]) -> tuple[list[bytes], list[memoryview]]:
    """Envelope and payload of a message; only the envelope is copied. Without a delimiter only the sender is known."""
    size = next((index for index, frame in enumerate(frames[:MAX_ENVELOPE]) if not len(frame)), 1)
    return [frame.bytes for frame in frames[:size]], [frame.buffer for frame in frames[size + 1 :]]
