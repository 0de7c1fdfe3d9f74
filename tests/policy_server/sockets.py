"""Plain ZeroMQ sockets that speak the wire without RemotePolicy."""

from collections.abc import Callable
from dataclasses import dataclass

import zmq

from policy_server import messages
from policy_server.arrays import Frame
from policy_server.peers import Native
from policy_server.wire import Message, decode, encode
from tests.policies import observation

TIMEOUT_MS = 20_000


class Raw:
    """A socket that sends and receives frames as they are."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, kind: int = zmq.DEALER) -> None:
        self.socket = context.socket(kind)
        self.socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
        self.socket.connect(endpoint)

    def send(self, message: Message) -> None:
        self.socket.send_multipart([b"", *encode(message)])

    def receive(self) -> Message:
        delimiter, *frames = self.socket.recv_multipart()
        assert delimiter == b""
        return decode(frames)

    def ask(self, message: Message) -> Message:
        self.send(message)
        return self.receive()


Connect = Callable[..., Raw]


@dataclass(frozen=True)
class Nobody(Native):
    """A peer that no reply can be sent to."""

    client: bytes

    def send(self, frames: list[Frame]) -> bool:
        return False


def infer(seq: int, deadline_ms: float | None = None, **changes: object) -> Message:
    return messages.infer(seq, observation(**changes), deadline_ms, None)  # type: ignore[arg-type]


def error(message: Message) -> tuple[str, str]:
    assert message.kind == "error"
    error_type, text, _ = messages.read_failure(message)
    return error_type, text
