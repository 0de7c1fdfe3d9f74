"""The policy's thread: the loop never waits for it, and it is the only one that uses the policy."""

import threading

import pytest

from policy_server.asking import Background
from policy_server.control_loop import Command
from tests.policies import Digest, Gated
from tests.policy_server.driven import PATIENCE, Driven
from vla.api import ActionChunk, Observation


def test_the_robot_is_commanded_while_the_policy_thinks() -> None:
    policy = Gated()
    driven = Driven(policy)
    assert [driven.tick() for _ in range(100)] == [Command.HOLD] * 100
    policy.gate.release(10)
    assert driven.asker.wait(PATIENCE)
    assert driven.tick() is Command.ACTION
    assert policy.order[:2] == [("reset", "s", 0), ("infer", "s", 0)]
    driven.loop.close()


def test_what_the_policy_raises_is_an_answer() -> None:
    asker = Background(Digest())
    asker.ask(Observation({}, "fail"), reset=False)
    assert asker.busy
    assert asker.wait(PATIENCE)
    answer = asker.take()
    assert answer is not None
    assert isinstance(answer.error, ZeroDivisionError)
    assert not asker.busy
    assert asker.take() is None
    asker.close()


def test_closing_leaves_a_policy_behind_that_never_returns(caplog: pytest.LogCaptureFixture) -> None:
    policy = Gated()
    asker = Background(policy, patience=0.01)
    asker.ask(Observation({}, "lift"), reset=False)
    assert policy.begun.acquire(timeout=PATIENCE)
    asker.close()
    assert "left behind" in caplog.text
    policy.gate.release()


def test_the_policy_is_used_by_one_thread_only() -> None:
    threads: set[int] = set()

    class Noting(Digest):
        def infer(self, observation: Observation) -> ActionChunk:
            threads.add(threading.get_ident())
            return super().infer(observation)

    driven = Driven(Noting())
    for _ in range(3):
        driven.next_action()
    driven.loop.close()
    assert len(threads) == 1
    assert threading.get_ident() not in threads
