"""What the server does not do is logged, however often it happens, by a line a second for each kind."""

import logging

import pytest

from policy_server.checks import WireError
from policy_server.refusals import Refusals
from policy_server.server import PolicyServer
from policy_server.tally import Tally
from policy_server.wire import Message
from tests.policies import Gated
from tests.policy_server.sockets import Raw, error, infer
from vla.api import InputError

PATIENCE = 20.0


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "policy_server.refusals"]


def test_the_log_grows_by_kind_and_not_by_message(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    tally = Tally()
    refusals = Refusals(tally, clock=lambda: now[0])
    errors = [WireError("no header"), InputError("no camera"), ZeroDivisionError("broken"), ValueError("broken too")]
    with caplog.at_level(logging.INFO):
        for time in (100.0, 100.5, 100.9, 101.0):
            now[0] = time
            for one in errors:
                refusals.reply(one, 7, "arm")
            refusals.undelivered(b"\x00arm")
    first = [
        "refused as malformed: no header",
        "refused as input: no camera",
        "failed with ZeroDivisionError: request 7 of session 'arm'",
        "failed with ValueError: request 7 of session 'arm'",
        "could not send an answer: client b'\\x00arm' has left or does not read",
    ]
    assert lines(caplog) == [*first, *(f"{line} (3 times since the last line)" for line in first)]
    assert tally.snapshot().outcomes == {"malformed": 4, "input": 4, "internal": 8}


def test_a_reply_says_what_was_refused() -> None:
    refusals = Refusals(Tally())
    own = WireError("no camera", "input", "look at hello", seq=3)
    assert refusals.reply(own, 0, "arm").body == {"type": "input", "message": "no camera", "hint": "look at hello"}
    assert (refusals.reply(own, 0, "arm").seq, refusals.reply(InputError("?"), 5, "arm").seq) == (3, 5)
    assert refusals.reply(OSError("?"), 5, "arm").body["message"] == "OSError: ?"


def test_superseded_expired_and_stopping_requests_are_logged(
    server: PolicyServer, gated: Gated, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        raw.send(infer(1, session="a"))
        assert gated.begun.acquire(timeout=PATIENCE)
        raw.send(infer(2, session="b", deadline_ms=1e-6))
        raw.send(infer(3, session="c"))
        raw.send(infer(4, session="c"))  # replaces the third
        assert error(raw.receive())[0] == "superseded"
        gated.gate.release()
        assert [raw.receive().seq, error(raw.receive())[0]] == [1, "expired"]
        assert gated.begun.acquire(timeout=PATIENCE)
        raw.send(infer(5, session="d"))
        while raw.ask(Message("health", 6)).body["pending"] == 0:
            pass
        server.stop()
        assert error(raw.receive())[0] == "stopping"
    said = " | ".join(lines(caplog))
    for kind in ("superseded", "expired", "stopping"):
        assert f"refused as {kind}: " in said
