"""What robot and server do alike with their sockets: whole messages, timeouts that ZeroMQ can count, small buffers."""

import numpy as np
import pytest
import zmq

from policy_server import sockets
from policy_server.client import RemotePolicy
from policy_server.server import PolicyServer
from policy_server.wire import Message, decode, encode
from tests.policy_server.sockets import Raw


@pytest.mark.parametrize("size", [0, 1, sockets.LENT - 1, sockets.LENT, 3 * sockets.LENT])
def test_a_message_of_any_size_arrives_whole(size: int) -> None:
    context = zmq.Context()
    sender, receiver = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    port = receiver.bind_to_random_port("tcp://127.0.0.1")
    sender.connect(f"tcp://127.0.0.1:{port}")
    large = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    sockets.send(sender, [b"", b"small", large.data, b"last"])
    got = [frame.bytes for frame in sockets.receive(receiver)]
    assert got == [b"", b"small", large.tobytes(), b"last"]
    assert not sockets.readable(receiver)
    context.destroy(linger=0)


@pytest.mark.parametrize(
    ("endpoint", "bounded"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://localhost:5555", True),
        ("tcp://[::1]:5555", True),
        ("tcp://192.168.0.7:5555", False),
        ("tcp://robot.example:5555", False),
        ("nonsense", False),
    ],
)
def test_only_on_one_machine_is_the_send_buffer_bounded(endpoint: str, bounded: bool) -> None:
    assert sockets.send_buffer(endpoint) == (sockets.CACHED if bounded else -1)


def test_timeouts_are_what_zeromq_can_count() -> None:
    assert [sockets.milliseconds(s) for s in (-1.0, 0.0, 1e-9, 0.25, 1e308)] == [0, 0, 1, 250, 2 * 10**9]


def test_a_client_may_be_as_patient_as_it_likes(digest_server: PolicyServer) -> None:
    with RemotePolicy(digest_server.endpoint, timeout=1e12) as remote:
        assert remote.health()["status"] == "ready"


def test_white_space_around_a_header_changes_nothing(raw: Raw) -> None:
    header, *_ = encode(Message("health", 1))
    raw.socket.send_multipart([b"", b"\n " + bytes(header) + b" \n"])
    assert raw.receive().kind == "health"
    assert decode([bytes(header) + b"\n"]).seq == 1
