"""Which request the policy gets next."""

import pytest

from policy_server.mailbox import Mailbox, Request
from policy_server.wire import Message, WireError
from tests.policies import observation


def request(session: str, seq: int, client: bytes = b"a", kind: str = "infer") -> Request:
    seen = observation(session=session) if kind == "infer" else None
    return Request([client], Message(kind, seq, session, 100.0), seen, arrived=10.0, decoded=10.0)


def drain(mailbox: Mailbox) -> list[int]:
    return [taken.message.seq for taken in iter(mailbox.take, None)]


def test_the_newest_observation_takes_the_turn_of_the_older() -> None:
    mailbox = Mailbox()
    first = request("a", 1)
    assert mailbox.put(first) is None
    assert mailbox.put(request("b", 2)) is None
    assert mailbox.put(request("a", 3)) is first
    assert drain(mailbox) == [3, 2]
    assert mailbox.take() is None


def test_clients_that_share_a_session_name_do_not_supersede_each_other() -> None:
    mailbox = Mailbox()
    assert mailbox.put(request("a", 1, b"one")) is None
    assert mailbox.put(request("a", 2, b"two")) is None
    assert drain(mailbox) == [1, 2]


def test_an_observation_after_a_reset_stays_after_it() -> None:
    mailbox = Mailbox()
    mailbox.put(request("a", 1))
    mailbox.put(request("a", 2, kind="reset"))
    superseded = mailbox.put(request("a", 3))
    assert superseded is not None
    assert superseded.message.seq == 1
    assert drain(mailbox) == [2, 3]


def test_a_full_mailbox_refuses_but_still_takes_newer_observations() -> None:
    mailbox = Mailbox(capacity=2)
    mailbox.put(request("a", 1))
    mailbox.put(request("b", 2, kind="reset"))
    with pytest.raises(WireError, match="2 requests wait already") as caught:
        mailbox.put(request("c", 3))
    assert caught.value.type == "overloaded"
    mailbox.put(request("a", 4))
    assert drain(mailbox) == [4, 2]


def test_a_deadline_counts_from_arrival() -> None:
    waiting = request("a", 1)
    assert not waiting.expired(10.1)
    assert waiting.expired(10.11)
