"""openpi's clients on a websocket."""

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from benchmarks.peers import pack_openpi, unpack_openpi
from policy_server.dialect import build
from policy_server.dialects.openpi import OpenPi
from policy_server.server import PolicyServer
from policy_server.wire import Message
from tests.policies import SPEC, Digest, Gated, observation
from tests.policy_server.foreign import GOLDEN, GOLDEN_SPEC, OPENPI, Golden
from tests.policy_server.sockets import Connect, infer
from vla.api import InputError

WAIT = 20.0
TWO_CAMERAS = {"dialect": "openpi", "endpoint": "ws://127.0.0.1:0"}
Dial = Callable[[OpenPi], ClientConnection]


def made(values: dict[str, Any], spec: Any = GOLDEN_SPEC, insecure: bool = False) -> OpenPi:
    dialect = build(values, spec, insecure)
    assert isinstance(dialect, OpenPi)
    return dialect


@pytest.fixture
def policy() -> Golden:
    return Golden()


@pytest.fixture
def dialect(policy: Golden) -> Iterator[OpenPi]:
    opened = made(OPENPI)
    with PolicyServer(policy, dialects=[opened]):
        yield opened


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connects, and reads the metadata away."""
    with ExitStack() as connections:

        def dialled(dialect: OpenPi) -> ClientConnection:
            connection = connections.enter_context(connect(dialect.endpoint, compression=None, max_size=None))
            connection.recv(WAIT)
            return connection

        yield dialled


def ask(connection: ClientConnection, request: Any) -> Any:
    connection.send(msgpack.packb(request, default=pack_openpi) or b"")
    reply = connection.recv(WAIT)
    return reply if isinstance(reply, str) else msgpack.unpackb(reply, object_hook=unpack_openpi)


def seen(seed: int = 0, prompt: str = "lift") -> dict[str, Any]:
    """An observation for SPEC."""
    robot = observation(seed)
    images = {f"observation/{name}": image for name, image in robot.images.items()}
    return {**images, "observation/state": robot.state, "prompt": prompt}


def test_a_golden_request_gets_the_golden_actions_and_timings(dialect: OpenPi, dial: Dial, policy: Golden) -> None:
    connection = dial(dialect)
    connection.send(GOLDEN["openpi.infer.request"])
    reply = connection.recv(WAIT)
    assert isinstance(reply, bytes)
    golden = GOLDEN["openpi.infer.reply"]
    actions = golden[1 : golden.index(b"\xadserver_timing")]  # all of it but the length of the map and the milliseconds
    assert reply[1 : 1 + len(actions)] == actions
    timing = msgpack.unpackb(reply, object_hook=unpack_openpi)["server_timing"]
    assert set(timing) == {"infer_ms", "queue_ms", "decode_ms"}
    assert policy.saw_the_golden_observation()


def test_the_server_speaks_first_and_says_what_the_policy_needs(dial: Dial) -> None:
    opened = made({**OPENPI, "metadata": {"reset_pose": [0.0, 1.0]}})
    with PolicyServer(Golden(), dialects=[opened]), connect(opened.endpoint) as connection:
        metadata = msgpack.unpackb(connection.recv(WAIT), object_hook=unpack_openpi)  # type: ignore[arg-type]
    golden = msgpack.unpackb(GOLDEN["openpi.metadata"])
    assert {name: metadata[name] for name in golden} == golden
    assert metadata["reset_pose"] == [0.0, 1.0]
    assert metadata["image_sizes"] == {"observation/image": [4, 5]}
    assert metadata["action_names"] == [quantity.name for quantity in GOLDEN_SPEC.actions]


def test_failures_are_text_and_the_connection_goes_on(dial: Dial) -> None:
    opened = made(TWO_CAMERAS, SPEC)
    with PolicyServer(Digest(), dialects=[opened]):
        connection = dial(opened)
        assert "input: observation/front is missing; the observation has ['prompt']" in ask(connection, {"prompt": "a"})
        assert ask(connection, 3) == "malformed: an observation must be a map, got 3"
        assert "internal: ZeroDivisionError: the policy is broken" in ask(connection, seen(prompt="fail"))
        assert "input: this policy does not know" in ask(connection, seen(prompt="refuse"))
        connection.send("text")
        assert connection.recv(WAIT) == "malformed: an observation is a binary frame of msgpack, a text frame came"
        connection.send(b"\xc1")
        assert "malformed: the message is no msgpack" in str(connection.recv(WAIT))
        assert ask(connection, seen())["actions"].shape == (5, 3)


def test_a_connection_is_a_session_that_is_forgotten_with_it(dial: Dial) -> None:
    policy = Digest()
    opened = made(TWO_CAMERAS, SPEC)
    with PolicyServer(policy, dialects=[opened]):
        first, second = dial(opened), dial(opened)
        one, again, other = (ask(connection, seen())["actions"] for connection in (first, first, second))
        assert not np.array_equal(one, again)
        assert not np.array_equal(one, other)
        assert ask(first, {"endpoint": "reset"}) == "reset successful"
        assert len(policy.asked) == 1
        second.close()
        while policy.asked:  # the server forgets it, in a thread of its own
            pass


def test_images_with_channels_first_and_under_nested_names_are_read(policy: Golden, dial: Dial) -> None:
    values = {**OPENPI, "cameras": {"head": "images/top"}, "channels_first": True}
    image = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    opened = made(values)
    with PolicyServer(policy, dialects=[opened]):
        state = np.zeros(7)
        ask(dial(opened), {"images": {"top": image}, "observation/state": state, "prompt": "lift"})
    np.testing.assert_array_equal(policy.seen[0].images["head"], image.transpose(1, 2, 0))


def test_a_state_in_parts_is_put_together_in_the_policys_order(policy: Golden, dial: Dial) -> None:
    names = [quantity.name for quantity in GOLDEN_SPEC.state]
    opened = made({**OPENPI, "state": {"grip": names[2:3], "arm": [*reversed(names[3:]), *names[:2]]}})
    with PolicyServer(policy, dialects=[opened]):
        sent = {
            "observation/image": np.zeros((4, 5, 3), np.uint8),
            "arm": np.arange(6.0),
            "grip": 9.0,
            "prompt": "lift",
        }
        ask(dial(opened), sent)
    assert policy.seen[0].state is not None
    assert policy.seen[0].state.tolist() == [4, 5, 9, 3, 2, 1, 0]


def test_health_and_metadata_are_answered_while_the_policy_runs(dial: Dial) -> None:
    gated = Gated()
    opened = made(TWO_CAMERAS, SPEC)
    with PolicyServer(gated, dialects=[opened]):
        asking = dial(opened)
        asking.send(msgpack.packb(seen(), default=pack_openpi) or b"")
        assert gated.begun.acquire(timeout=20)
        with urllib.request.urlopen(opened.endpoint.replace("ws", "http") + "/healthz", timeout=WAIT) as reply:
            assert (reply.status, reply.read()) == (200, b"OK\n")
        dial(opened)
        gated.gate.release(100)
        assert isinstance(asking.recv(WAIT), bytes)


def test_late_requests_are_refused_before_the_policy_sees_them(dial: Dial, connect: Connect) -> None:
    gated = Gated()
    opened = made({**TWO_CAMERAS, "deadline_ms": 1e-6}, SPEC)
    with PolicyServer(gated, dialects=[opened]) as server:
        native, late = connect(server.endpoint), dial(opened)
        native.send(infer(1))
        assert gated.begun.acquire(timeout=20)
        late.send(msgpack.packb(seen(), default=pack_openpi) or b"")
        while native.ask(Message("health", 2)).body["pending"] == 0:
            pass
        gated.gate.release()
        assert str(late.recv(WAIT)).startswith("expired: ")
        assert native.receive().kind == "infer"
    assert [kind for kind, *_ in gated.order] == ["infer"]


def test_a_stopping_server_answers_what_waits_and_hangs_up(dial: Dial, connect: Connect) -> None:
    gated = Gated()
    opened = made(TWO_CAMERAS, SPEC)
    with PolicyServer(gated, dialects=[opened]) as server:
        first, second = dial(opened), dial(opened)
        first.send(msgpack.packb(seen(), default=pack_openpi) or b"")
        assert gated.begun.acquire(timeout=20)
        second.send(msgpack.packb(seen(), default=pack_openpi) or b"")
        native = connect(server.endpoint)
        while native.ask(Message("health", 1)).body["pending"] == 0:
            pass
        server.stop()
        assert str(second.recv(WAIT)) == "stopping: the server is stopping"
        gated.gate.release()
    assert isinstance(first.recv(WAIT), bytes)
    with pytest.raises(ConnectionClosed):
        first.recv(WAIT)


def test_a_page_in_a_browser_is_turned_away(dialect: OpenPi) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(dialect.endpoint, origin="http://somewhere.example").__enter__()  # type: ignore[arg-type]


def test_clients_beyond_the_limit_are_turned_away(dialect: OpenPi, dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policy_server.dialects.openpi.MOST_CLIENTS", 1)
    dial(dialect)
    with pytest.raises(InvalidStatus, match="503"):
        dial(dialect)


def test_a_message_beyond_the_limit_ends_the_connection_that_sent_it(
    dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policy_server.dialects.openpi.MAX_MESSAGE_BYTES", 100_000)
    opened = made(OPENPI)
    with PolicyServer(Golden(), dialects=[opened]):
        good, bad = dial(opened), dial(opened)
        with pytest.raises(ConnectionClosed):
            ask(bad, bytes(200_000))
        good.send(GOLDEN["openpi.infer.request"])
        assert isinstance(good.recv(WAIT), bytes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"endpoint": "ws://0.0.0.0:8000"}, "insecure=true"),
        ({"endpoint": "ws://*:8000"}, "insecure=true"),
        ({"endpoint": "tcp://127.0.0.1:8000"}, "endpoint is ws://host:port"),
        ({"endpoint": "ws://127.0.0.1:70000"}, "largest one is 65535"),
        ({"actions": {"joints": [q.name for q in GOLDEN_SPEC.actions]}}, "read all actions under 'actions'"),
        ({"channels_first": 1}, "channels_first must be one of"),
        ({"metadata": "none"}, "metadata must map names to values"),
    ],
)
def test_options_outside_their_range_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        made({**OPENPI, **changes})
    assert complaint in str(caught.value)


def test_another_machines_address_takes_consent() -> None:
    assert made({**OPENPI, "endpoint": "ws://0.0.0.0:8000"}, insecure=True).endpoint == "ws://0.0.0.0:8000"


def test_a_port_in_use_is_refused_and_leaves_nothing_behind(dialect: OpenPi) -> None:
    second = made({**OPENPI, "endpoint": dialect.endpoint})
    with (
        pytest.raises(InputError, match=r"cannot serve at ws://127\.0\.0\.1:"),
        PolicyServer(Golden(), dialects=[second]),
    ):
        pass


def test_http_requests_to_other_pages_are_no_websocket(dialect: OpenPi) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(dialect.endpoint.replace("ws", "http"), timeout=WAIT)
    with closing(caught.value):
        assert caught.value.code == 426
