"""Whatever bytes other projects' clients send, a dialect gives a message or a WireError, and the server serves on.

Hypothesis finds and shrinks; the loop over a seed makes 100,000 messages of each dialect (CADENCE_FUZZ=n: n of them).
"""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from random import Random
from typing import Any

import msgpack
import pytest
import zmq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as dial

from policy_server import messages
from policy_server.checks import WireError
from policy_server.dialect import build, kinds
from policy_server.dialects.openpi import OpenPi, Waiting
from policy_server.packing import unpack
from policy_server.peers import NATIVE, Exchange
from policy_server.server import PolicyServer
from policy_server.wire import Message, encode
from tests.policy_server.foreign import ACTIONS, GOLDEN, GOLDEN_SPEC, GR00T, OPENPI, Golden
from tests.policy_server.sockets import Connect
from tests.policy_server.test_fuzz import MANY, mutation
from vla.api import ActionChunk, InputError

QUICK = settings(
    deadline=None,
    derandomize=True,
    max_examples=1000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
VALID = {kind: [data for name, data in GOLDEN.items() if name.startswith(kind)] for kind in kinds()}
MARKS = [
    b"\xc1",
    b"\xc4\x00",
    b"\xc6\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xd4\xff\x00",
    b"PK",
]
MARKS += [
    b"\x90" * 30,
    b"\x81" * 30,
    b"\xc0",
    b"\xcb\x7f\xf0" + bytes(6),
    b"\xcf" + b"\xff" * 8,
    b"\xd7\xff" + b"\xff" * 8,
]
REPLY = messages.actions(
    Message("infer", 1), ActionChunk(ACTIONS, 0.1), {"wire_decode": 0.1, "queue": 0.1, "server": 1.0}
)


SPOKEN_TO_GR00T = build(GR00T, GOLDEN_SPEC)
SPOKEN_TO_OPENPI = build(OPENPI, GOLDEN_SPEC)


def _gr00t(data: bytes) -> Exchange:
    return SPOKEN_TO_GR00T.recognise(b"client", [memoryview(data)]) or NATIVE


def _openpi(data: bytes) -> Exchange:
    assert isinstance(SPOKEN_TO_OPENPI, OpenPi)
    somebody: Any = object()
    return Waiting(SPOKEN_TO_OPENPI, "session", 0, somebody)


EXCHANGES: dict[str, Callable[[bytes], Exchange]] = {"gr00t": _gr00t, "openpi": _openpi}


def survive(kind: str, data: bytes) -> None:
    """Read and answer as the server does; the only way to fail is InputError, and that is answered too."""
    exchange = EXCHANGES[kind](data)
    refusal = messages.failure("internal", "the policy is broken", "hint")
    with suppress(InputError):
        try:
            message = exchange.decode([data])
        except WireError as error:
            refusal = messages.failure(error.type, str(error), error.hint)
            raise
        if message.kind == "infer":
            messages.read_infer(message, GOLDEN_SPEC)
            assert exchange.encode(REPLY)
    (answer,) = exchange.encode(refusal)
    assert 0 < len(answer) < 20_000


@st.composite
def mutated(draw: st.DrawFn, kind: str) -> bytes:
    """A golden message after a few edits of its bytes."""
    data = bytearray(draw(st.sampled_from(VALID[kind])))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        edit = draw(st.sampled_from(["replace", "mark", "cut", "double"]))
        if edit == "replace":
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif edit == "mark":
            data[place:place] = draw(st.sampled_from(MARKS))
        elif edit == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 60))]
    return bytes(data)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", kinds())
def test_many_mutations_of_each_dialect_are_read_or_refused(kind: str) -> None:
    random = Random(0)
    for _ in range(MANY):
        survive(kind, mutation(random, random.choice(VALID[kind]), MARKS))


def test_every_dialect_is_fuzzed() -> None:
    assert sorted(EXCHANGES) == kinds()
    assert all(VALID.values())


@QUICK
@given(mutated("gr00t"))
@example(b"")
@example(b"\x80")
@example(b"\x81\xa8endpoint\xd9")
def test_mutated_messages_of_gr00t_are_read_or_refused(data: bytes) -> None:
    survive("gr00t", data)


@QUICK
@given(mutated("openpi"))
@example(b"")
def test_mutated_messages_of_openpi_are_read_or_refused(data: bytes) -> None:
    survive("openpi", data)


ENDPOINTS = ["endpoint", "data", "observation", "options", "get_action", "reset"]
NAMED = ["video", "state", "language", "ego_view", "arm", "task", "video.ego_view", "state.arm", "prompt"]
MARKERS = ["__ndarray_class__", "as_npy", "nd", "type", "kind", "shape", "__ndarray__", "dtype", "<f4", "|u1", "|O"]
TOKENS = st.sampled_from([*ENDPOINTS, *NAMED, *MARKERS, "observation/image", "observation/state", "__npgeneric__"])
KEYS = TOKENS | TOKENS.map(str.encode)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TOKENS | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@settings(QUICK, max_examples=300)
@given(st.sampled_from(kinds()), VALUES)
def test_arbitrary_msgpack_is_read_or_refused(kind: str, value: Any) -> None:
    for request in (value, {"endpoint": "get_action", "data": value}, {"data": {"observation": value}}):
        survive(kind, msgpack.packb(request) or b"")


@pytest.mark.parametrize(
    "unit", [b"\x90", b"\x80", b"\x91", b"\xc0", b"\xdc\x04\x00", b"\xdd\x00\x00\x04\x00", b"\xa1a"]
)
@pytest.mark.parametrize("start", [b"", b"\xdc\xff\xff", b"\xdd\x00\x0f\x00\x00", b"\xdc\x04\x00", b"\x81\xa1a"])
def test_a_message_takes_memory_like_its_size_and_no_more(unit: bytes, start: bytes) -> None:
    """A million tiny values in nested lists would take a hundred bytes for each of the sender's."""
    data = start + unit * (1_000_000 // len(unit))
    tracemalloc.start()
    with suppress(WireError):
        unpack(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32e6


class Bystanders:
    """A server with every dialect, and what it takes to fire at it while a robot beside it is served."""

    def __init__(self, stack: ExitStack, connect: Connect) -> None:
        self.openpi = build(OPENPI, GOLDEN_SPEC)
        self.server = stack.enter_context(PolicyServer(Golden(), dialects=[build(GR00T, GOLDEN_SPEC), self.openpi]))
        self.robot = connect(self.server.endpoint)
        self.connect = connect

    def fire(self, kind: str, fired: list[bytes]) -> None:
        """Send and leave without reading a single answer."""
        if kind == "gr00t":
            attacker = self.connect(self.server.endpoint)
            for data in fired:
                attacker.socket.send_multipart([b"", data])
            attacker.socket.close(linger=1000)
        else:
            assert isinstance(self.openpi, OpenPi)
            with suppress(ConnectionClosed), dial(self.openpi.endpoint, compression=None) as websocket:
                for data in fired:
                    websocket.send(data)

    def serve_the_robot(self) -> None:
        self.robot.socket.send_multipart([b"", *encode(Message("health", 1))])
        assert self.robot.receive().body["status"] == "ready"
        request = self.connect(self.server.endpoint, zmq.REQ)
        request.socket.send(GOLDEN["gr00t_n16.get_action.request"])
        assert request.socket.recv() == GOLDEN["gr00t_n16.get_action.reply"]
        request.socket.close(linger=0)


@pytest.fixture
def bystanders(connect: Connect) -> Iterator[Bystanders]:
    with ExitStack() as stack:
        yield Bystanders(stack, connect)


@settings(QUICK, max_examples=30)
@given(
    st.sampled_from(kinds()).flatmap(
        lambda kind: st.tuples(st.just(kind), st.lists(mutated(kind), min_size=1, max_size=5))
    )
)
def test_a_server_under_fire_serves_the_others(bystanders: Bystanders, fired: tuple[str, list[bytes]]) -> None:
    bystanders.fire(*fired)
    bystanders.serve_the_robot()
