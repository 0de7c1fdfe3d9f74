"""Whose memory the policy may hold."""

import math

from policy_server.sessions import Sessions


def test_a_session_is_foreign_to_whoever_did_not_build_its_memory() -> None:
    sessions = Sessions()
    assert not sessions.is_foreign("default", b"one")
    sessions.used("default", b"one", 0.0)
    assert not sessions.is_foreign("default", b"one")
    assert sessions.is_foreign("default", b"two")
    sessions.forgotten("default")
    assert not sessions.is_foreign("default", b"two")


def test_what_nobody_owns_is_foreign_to_everyone() -> None:
    sessions = Sessions()
    sessions.used("a", b"", 0.0)
    assert sessions.is_foreign("a", b"one")


def test_sessions_unused_for_too_long_are_forgotten_once() -> None:
    sessions = Sessions(idle=10.0)
    sessions.used("a", b"one", 0.0)
    sessions.used("b", b"one", 5.0)
    assert sessions.due() == 10.0
    assert sessions.take_idle(9.9) == []
    sessions.used("a", b"one", 9.9)
    assert sessions.due() == 15.0
    assert sessions.take_idle(15.0) == ["b"]
    assert sessions.take_idle(15.0) == []
    assert sessions.take_idle(100.0) == ["a"]
    assert (len(sessions), sessions.due()) == (0, math.inf)


def test_beyond_the_most_the_one_used_longest_ago_goes() -> None:
    sessions = Sessions(most=2)
    for time, name in enumerate(["a", "b", "c", "a"]):
        sessions.used(name, b"one", float(time))
    assert sessions.take_idle(4.0) == ["b"]
    assert len(sessions) == 2
