"""The server over real sockets, spoken to by RemotePolicy and by plain ZeroMQ sockets."""

import json
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zmq

from policy_server import messages
from policy_server.client import RemoteError, RemotePolicy
from policy_server.server import PolicyServer
from policy_server.wire import Message, decode, encode
from tests.policies import SPEC, Digest, Gated, observation
from tests.policy_server.sockets import Connect, Raw, error, infer
from vla.api import ActionChunk


def test_health_and_hello_answer_while_the_policy_runs(server: PolicyServer, gated: Gated, raw: Raw) -> None:
    raw.send(infer(1))
    assert gated.begun.acquire(timeout=20)
    with RemotePolicy(server.endpoint) as other:
        assert other.spec == SPEC
        health = other.health()
    busy = health.pop("busy_ms")
    assert isinstance(busy, float)
    assert health == {"status": "ready", "pending": 0, "sessions": 0, "served": 0, "failed": 0}
    gated.gate.release()
    assert raw.receive().kind == "infer"
    assert raw.ask(Message("health", 2)).body["busy_ms"] is None
    assert raw.ask(Message("health", 3)).body["served"] == 1


def test_the_newest_observation_of_a_session_wins(gated: Gated, raw: Raw) -> None:
    raw.send(infer(1, session="a", step=1))
    assert gated.begun.acquire(timeout=20)
    for seq in (2, 3, 4):
        raw.send(infer(seq, session="a", step=seq))
    superseded = [raw.receive(), raw.receive()]
    assert [reply.seq for reply in superseded] == [2, 3]
    assert {error(reply)[0] for reply in superseded} == {"superseded"}
    gated.gate.release(2)
    assert [raw.receive().seq, raw.receive().seq] == [1, 4]
    assert gated.order == [("infer", "a", 1), ("infer", "a", 4)]


def test_expired_requests_never_reach_the_policy(gated: Gated, raw: Raw) -> None:
    raw.send(infer(1, session="a"))
    assert gated.begun.acquire(timeout=20)
    raw.send(infer(2, session="b", deadline_ms=1e-6))
    raw.send(infer(3, session="c", deadline_ms=1e9))
    assert raw.ask(Message("health", 4)).body["pending"] == 2
    gated.gate.release(2)
    replies = [raw.receive() for _ in range(3)]
    assert sorted(reply.seq for reply in replies) == [1, 2, 3]
    (expired,) = [reply for reply in replies if reply.kind == "error"]
    assert expired.seq == 2
    assert error(expired)[0] == "expired"
    assert [session for _, session, _ in gated.order] == ["a", "c"]


def test_reset_reaches_the_policy_in_order(gated: Gated, raw: Raw) -> None:
    raw.send(infer(1, session="a"))
    assert gated.begun.acquire(timeout=20)  # from here on nothing can supersede it
    for message in (Message("reset", 2, "a"), infer(3, session="a"), Message("reset", 4, "b")):
        raw.send(message)
    gated.gate.release(2)
    assert [raw.receive().seq for _ in range(4)] == [1, 2, 3, 4]
    assert gated.order == [("infer", "a", 0), ("reset", "a", 0), ("infer", "a", 0), ("reset", "b", 0)]


def test_sessions_do_not_share_state_and_reset_forgets(digest_server: PolicyServer) -> None:
    with RemotePolicy(digest_server.endpoint) as remote:
        first = remote.infer(observation(session="a"))
        remote.infer(observation(session="b"))
        second = remote.infer(observation(session="a"))
        remote.reset("a")
        again = remote.infer(observation(session="a"))
    assert np.array_equal(again.actions, first.actions)
    assert not np.array_equal(second.actions, first.actions)


WRONG = {
    "an image of the wrong size": ({"image/front": np.zeros((5, 6, 3), np.uint8)}, "needs camera 'front' of 4 x 6"),
    "a float image": ({"image/front": np.zeros((4, 6, 3), np.float32)}, "must be uint8 (height, width, 3) RGB"),
    "a grey image": ({"image/front": np.zeros((4, 6), np.uint8)}, "must be uint8 (height, width, 3) RGB"),
    "a missing camera": ({"image/front": None}, "needs camera 'front' of 4 x 6; the observation has ['wrist']"),
    "a long state": ({"state": np.zeros(3, np.float32)}, "a state of 2 numbers ['x', 'gripper']"),
    "a double state": ({"state": np.zeros(2, np.float64)}, "state must be float32"),
    "a state that is not finite": ({"state": np.array([0, np.nan], np.float32)}, "not finite"),
    "no state": ({"state": None}, "the observation has None"),
    "an unknown array": ({"depth": np.zeros(1, np.float32)}, "got ['depth']"),
}


@pytest.mark.parametrize("name", WRONG)
def test_observations_that_do_not_fit_are_refused_and_the_next_is_answered(plain: Raw, name: str) -> None:
    changes, said = WRONG[name]
    good = infer(1)
    arrays = {key: array for key, array in {**good.arrays, **changes}.items() if array is not None}
    reply = plain.ask(Message("infer", 1, "default", body=good.body, arrays=arrays))
    assert reply.seq == 1
    error_type, text = error(reply)
    assert error_type == "input"
    assert said in text
    assert plain.ask(infer(2)).kind == "infer"


def test_a_policys_refusal_and_failure_reach_the_client(plain: Raw, caplog: pytest.LogCaptureFixture) -> None:
    refused = plain.ask(infer(1, instruction="refuse"))
    assert error(refused) == ("input", "this policy does not know the instruction 'refuse'")
    with caplog.at_level(logging.ERROR):
        failed = plain.ask(infer(2, instruction="fail"))
    assert error(failed) == ("internal", "ZeroDivisionError: the policy is broken")
    assert "Traceback" in caplog.text
    assert (refused.seq, failed.seq) == (1, 2)
    assert plain.ask(infer(3)).kind == "infer"


def test_a_chunk_that_breaks_the_spec_is_the_policys_failure(connect: Connect) -> None:
    class Short(Digest):
        def infer(self, observation: Any) -> ActionChunk:
            chunk = super().infer(observation)
            return ActionChunk(chunk.actions[:-1], chunk.period)

    with PolicyServer(Short()) as server:
        error_type, text = error(connect(server.endpoint).ask(infer(1)))
    assert error_type == "internal"
    assert "the policy gave actions (4, 3)" in text


MALFORMED = {
    "no header": [b""],
    "a pickle": [b"", b"\x80\x04K*."],
    "a frame too few": [b"", *encode(infer(1))[:-1]],
    "a message without a number": [b"", bytes(encode(Message("health", 1))[0]).replace(b'"seq":1', b'"seq":0')],
    "an unknown kind": [b"", b'{"version":2,"kind":"kill"}'],
    "no delimiter": [b"hello"],
    "an error": [b"", *encode(messages.failure("internal", "?"))],
    "a body of another kind": [b"", *encode(Message("hello", 1))],
    "arrays in health": [b"", *encode(Message("health", 1, arrays={"a": np.zeros(1)}))],
    "many frames": [b"", *[b"x"] * 500],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_messages_are_refused_and_the_next_is_answered(plain: Raw, name: str) -> None:
    plain.socket.send_multipart(MALFORMED[name])
    assert error(plain.receive())[0] == "malformed"
    assert plain.ask(Message("health", 2)).kind == "health"


def test_another_version_is_refused_by_number(plain: Raw) -> None:
    plain.socket.send_multipart([b"", json.dumps({"version": 99, "seq": 5}).encode()])
    reply = plain.receive()
    assert (reply.seq, error(reply)[0]) == (5, "version")
    assert re.search("version 99.*version 2", error(reply)[1])


def test_another_policys_spec_id_is_refused(plain: Raw) -> None:
    error_type, text = error(plain.ask(messages.infer(1, observation(), None, "feedfacefeedface")))
    assert error_type == "spec"
    assert "feedfacefeedface" in text
    assert messages.spec_id(SPEC) in text


@pytest.mark.parametrize("correlate", [False, True])
def test_a_plain_req_socket_is_served(connect: Connect, digest_server: PolicyServer, correlate: bool) -> None:
    requester = connect(digest_server.endpoint, zmq.REQ)
    requester.socket.setsockopt(zmq.REQ_CORRELATE, int(correlate))
    requester.socket.setsockopt(zmq.REQ_RELAXED, int(correlate))
    for seq in (1, 2):
        requester.socket.send_multipart(encode(infer(seq)))
        reply = decode(requester.socket.recv_multipart())
        assert reply.seq == seq
        assert messages.read_actions(reply, SPEC).actions.shape == (5, 3)


def test_answers_carry_timing(plain: Raw) -> None:
    replies = [plain.ask(infer(1)), plain.ask(Message("reset", 2, "a")), plain.ask(Message("health", 3))]
    assert list(replies[0].timing) == ["total", "wire_decode", "queue", "server"]
    assert list(replies[1].timing) == ["wire_decode", "queue", "server"]
    assert list(replies[2].timing) == ["server"]
    assert all(value >= 0 for reply in replies for value in reply.timing.values())
    assert plain.ask(infer(4, instruction="refuse")).timing == {}


def test_stages_do_not_overlap(plain: Raw) -> None:
    timing = plain.ask(infer(1)).timing
    assert timing["wire_decode"] + timing["queue"] <= timing["server"]


def test_stop_finishes_the_running_request_and_refuses_the_waiting(gated: Gated, connect: Connect) -> None:
    with PolicyServer(gated) as server, ThreadPoolExecutor() as threads:
        first, second = connect(server.endpoint), connect(server.endpoint)
        first.send(infer(1, session="a"))
        assert gated.begun.acquire(timeout=20)
        second.send(infer(1, session="b"))
        assert second.ask(Message("health", 2)).body["pending"] == 1
        stopped = threads.submit(server.serve_forever)
        server.stop()
        assert error(second.receive())[0] == "stopping"
        assert second.ask(Message("health", 3)).body["status"] == "stopping"
        assert not stopped.done()
        gated.gate.release()
        assert first.receive().kind == "infer"
        stopped.result(timeout=20)


class Breaking(PolicyServer):
    """Its I/O thread ends with the first message."""

    def _start_next(self) -> None:
        raise MemoryError("no room")


class BreakingLater(PolicyServer):
    """The thread of its policy ends with the first answer."""

    def _finish(self) -> None:
        raise MemoryError("no room")


@pytest.mark.parametrize("breaking", [Breaking, BreakingLater])
@pytest.mark.parametrize("wait", [PolicyServer.serve_forever, lambda server: server._io.join()])
def test_what_breaks_the_server_reaches_its_owner(
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    wait: Callable[[PolicyServer], None],
    breaking: type[PolicyServer],
) -> None:
    def serve() -> None:
        with breaking(Digest()) as server:
            connect(server.endpoint).send(infer(1))
            wait(server)

    with pytest.raises(MemoryError, match="no room"):
        serve()
    assert "the server broke: MemoryError" in caplog.text


def test_many_clients_at_once_all_get_their_own_answer(digest_server: PolicyServer) -> None:
    def episode(robot: int) -> list[bytes]:
        with RemotePolicy(digest_server.endpoint, timeout=20.0) as remote:
            seen = [observation(seed=step, session=f"robot-{robot}", step=step) for step in range(5)]
            return [remote.infer(o).actions.tobytes() for o in seen]

    def alone(robot: int) -> list[bytes]:
        policy = Digest()
        seen = [observation(seed=step, session=f"robot-{robot}", step=step) for step in range(5)]
        return [policy.infer(o).actions.tobytes() for o in seen]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(episode, range(8))) == list(map(alone, range(8)))


def test_no_message_waits_for_another_to_come(digest_server: PolicyServer) -> None:
    """Two threads use the ROUTER in turns: what one is told of a new message, the other is not told again."""

    def robot(number: int) -> None:
        with RemotePolicy(digest_server.endpoint, timeout=20.0) as remote:
            for step in range(200):
                assert step % 7 or remote.health()["status"] == "ready"
                remote.infer(observation(session=f"robot-{number}", step=step))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(robot, range(4)))


def test_a_stopping_server_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with PolicyServer(Digest()) as server, RemotePolicy(server.endpoint) as remote:
        remote.infer(observation())
    ours = [t for t in threading.enumerate() if t not in before and t.name.startswith("policy")]
    assert ours == []


def test_remote_errors_keep_their_type(server: PolicyServer, gated: Gated) -> None:
    with ThreadPoolExecutor() as threads, RemotePolicy(server.endpoint, timeout=20.0) as remote:
        asking = threads.submit(remote.infer, observation(session="a"))
        assert gated.begun.acquire(timeout=20)
        with RemotePolicy(server.endpoint, timeout=20.0) as other:
            waiting = threads.submit(other.infer, observation(session="b"))
            with RemotePolicy(server.endpoint) as third:
                while third.health()["pending"] == 0:
                    pass
            server.stop()
            with pytest.raises(RemoteError, match="answered stopping: the server is stopping") as caught:
                waiting.result(timeout=20)
            assert caught.value.type == "stopping"
        gated.gate.release()
        assert asking.result(timeout=20).actions.shape == (5, 3)
