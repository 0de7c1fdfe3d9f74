"""Which requests the policy gets next."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_server.checks import WireError
from policy_server.mailbox import Mailbox, Request
from policy_server.wire import Message
from tests.policies import observation
from tests.policy_server.sockets import Nobody


def request(session: str, seq: int, client: bytes = b"a", kind: str = "infer") -> Request:
    seen = observation(session=session) if kind == "infer" else None
    return Request(Nobody(client), Message(kind, seq, session, 100.0), seen, arrived=10.0, decoded=10.0)


def numbers(requests: list[Request]) -> list[int]:
    return [taken.message.seq for taken in requests]


def drain(mailbox: Mailbox, most: int = 1) -> list[list[int]]:
    return [numbers(taken) for taken in iter(lambda: mailbox.take(most), [])]


def test_the_newest_observation_takes_the_turn_of_the_older() -> None:
    mailbox = Mailbox()
    first = request("a", 1)
    assert mailbox.put(first) is None
    assert mailbox.put(request("b", 2)) is None
    assert mailbox.put(request("a", 3)) is first
    assert drain(mailbox) == [[3], [2]]
    assert mailbox.take() == []


def test_clients_that_share_a_session_name_do_not_supersede_each_other() -> None:
    mailbox = Mailbox()
    assert mailbox.put(request("a", 1, b"one")) is None
    assert mailbox.put(request("a", 2, b"two")) is None
    assert drain(mailbox) == [[1], [2]]


def test_an_observation_after_a_reset_stays_after_it() -> None:
    mailbox = Mailbox()
    mailbox.put(request("a", 1))
    mailbox.put(request("a", 2, kind="reset"))
    superseded = mailbox.put(request("a", 3))
    assert superseded is not None
    assert superseded.message.seq == 1
    assert drain(mailbox) == [[2], [3]]


def test_a_full_mailbox_refuses_but_still_takes_newer_observations() -> None:
    mailbox = Mailbox(capacity=2)
    mailbox.put(request("a", 1, b"one"))
    mailbox.put(request("b", 2, b"two", kind="reset"))
    with pytest.raises(WireError, match="2 requests wait already") as caught:
        mailbox.put(request("c", 3, b"three"))
    assert caught.value.type == "overloaded"
    mailbox.put(request("a", 4, b"one"))
    assert drain(mailbox) == [[4], [2]]


def test_no_client_fills_the_mailbox_alone() -> None:
    mailbox = Mailbox(capacity=10, per_client=2)
    for seq in (1, 2):
        mailbox.put(request(f"s{seq}", seq, b"greedy", kind="reset"))
    with pytest.raises(WireError, match="2 requests of this client wait already") as caught:
        mailbox.put(request("s3", 3, b"greedy", kind="reset"))
    assert caught.value.type == "overloaded"
    mailbox.put(request("s", 4, b"modest"))
    assert drain(mailbox) == [[1], [4], [2]]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([b"x", b"y", b"z"]), st.integers(0, 20)), max_size=40))
def test_clients_take_turns_however_much_each_of_them_sends(sent: list[tuple[bytes, int]]) -> None:
    """Between two answers to one client, everyone else who waits is answered once."""
    mailbox = Mailbox()
    for seq, (client, session) in enumerate(sent, 1):
        mailbox.put(request(str(session), seq, client))
    answered: list[bytes] = []
    while (waiting := {other.client for other in mailbox}) and (taken := mailbox.take()):
        (one,) = taken
        if one.client in answered:
            since = answered[len(answered) - answered[::-1].index(one.client) :]
            assert waiting - {one.client} <= set(since)
        answered.append(one.client)


def test_a_batch_takes_one_observation_of_each_session_in_turn() -> None:
    mailbox = Mailbox()
    for seq, (session, client) in enumerate([("a", b"x"), ("b", b"x"), ("c", b"y"), ("a", b"z")], 1):
        mailbox.put(request(session, seq, client))
    assert drain(mailbox, most=3) == [[1, 3], [4, 2]]  # both sessions "a" are not answered together


def test_a_reset_is_never_part_of_a_batch() -> None:
    mailbox = Mailbox()
    mailbox.put(request("a", 1, b"x"))
    mailbox.put(request("a", 2, b"x", kind="reset"))
    mailbox.put(request("a", 3, b"x"))
    mailbox.put(request("b", 4, b"y"))
    assert drain(mailbox, most=8) == [[2], [4, 3]]


def test_a_deadline_counts_from_arrival() -> None:
    waiting = request("a", 1)
    assert not waiting.expired(10.1)
    assert waiting.expired(10.11)


def test_the_expired_are_taken_out_and_the_others_keep_their_turns() -> None:
    mailbox = Mailbox()
    for seq, client in enumerate([b"x", b"y", b"x"], 1):
        late = request(f"s{seq}", seq, client)
        late.arrived += 5 * (seq == 3)
        mailbox.put(late)
    assert numbers(mailbox.take_expired(12.0)) == [1, 2]
    assert drain(mailbox) == [[3]]
    assert len(mailbox) == 0
