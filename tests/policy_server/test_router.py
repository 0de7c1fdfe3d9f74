"""Replies are never dropped without a word, and never waited for."""

from typing import Any

import pytest
import zmq

from policy_server.router import bind, new_router, opened, send
from tests.policy_server.sockets import TIMEOUT_MS


class Stubborn:
    """A socket whose first attempts to send end as told."""

    def __init__(self, *ends: Exception) -> None:
        self.ends = list(ends)
        self.calls: list[str] = []

    def send(self, frame: bytes, flags: int, copy: bool) -> None:
        assert flags & zmq.NOBLOCK
        if self.ends:
            self.calls.append("send")
            raise self.ends.pop(0)
        if not flags & zmq.SNDMORE:
            self.calls.append("send")

    def getsockopt(self, option: int) -> int:
        self.calls.append("events")
        return 0


def attempt(*ends: Exception) -> tuple[bool, list[str]]:
    socket: Any = Stubborn(*ends)
    return send(socket, [b"client", b"", b"reply"]), socket.calls


def test_a_queue_that_only_looks_full_is_looked_at_again() -> None:
    assert attempt() == (True, ["send"])
    assert attempt(zmq.Again()) == (True, ["send", "events", "send"])


def test_a_client_that_does_not_read_or_has_left_is_given_up_at_once() -> None:
    assert attempt(zmq.Again(), zmq.Again())[0] is False
    gone = zmq.ZMQError(zmq.EHOSTUNREACH)
    assert attempt(gone, gone)[0] is False


def test_another_error_is_no_reason_to_go_on() -> None:
    with pytest.raises(zmq.ContextTerminated):
        attempt(zmq.ContextTerminated())


def test_the_router_says_so_when_it_cannot_send() -> None:
    with zmq.Context() as context, new_router(context, "tcp://127.0.0.1:0") as router:
        endpoint = bind(router, "tcp://127.0.0.1:0")
        assert not send(router, [b"nobody", b"", b"reply"])
        with context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            dealer.connect(endpoint)
            dealer.send_multipart([b"", b"ask"])
            assert router.poll(TIMEOUT_MS)
            client = router.recv_multipart()[0]
            delivered = sum(send(router, [client, b"", bytes(1_000_000)]) for _ in range(2000))
            assert 16 <= delivered < 2000  # it reads nothing: what the queues hold, and no more
            dealer.recv_multipart()


def test_only_the_envelope_of_a_message_is_copied() -> None:
    copied: list[int] = []

    class Watched(zmq.Frame):
        @property
        def bytes(self) -> bytes:
            copied.append(len(self))
            return super().bytes

    envelope, payload = opened([Watched(frame) for frame in (b"peer", b"id", b"", b"header", b"image")])
    assert (envelope, [bytes(frame) for frame in payload]) == ([b"peer", b"id"], [b"header", b"image"])
    assert copied == [4, 2]
