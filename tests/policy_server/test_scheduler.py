"""What the policy does next: turns, batches, deadlines and forgetting, without sockets and on a clock of our own."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from policy_server.mailbox import Request
from policy_server.scheduler import Batching, Scheduler
from policy_server.wire import Message
from policy_server.worker import Result, warm_up
from tests.policies import SPEC, Batched, Digest, Gated, observation
from tests.policy_server.sockets import Nobody
from vla.api import ActionChunk, InputError, Observation, Policy

made: list["Bench"] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No test leaves a thread behind."""
    made.clear()
    yield
    for bench in made:
        bench.scheduler.close()


class Bench:
    """A Scheduler whose jobs the test waits for."""

    def __init__(self, policy: Policy, batching: Batching = Batching(), idle: float = 600.0) -> None:  # noqa: B008
        self.ended = threading.Semaphore(0)
        self.scheduler = Scheduler(policy, self.ended.release, batching, idle)
        self.seq = 0
        made.append(self)

    def put(
        self, session: str, client: str = "one", now: float = 0.0, deadline_ms: float | None = None, **seen: Any
    ) -> int:
        self.seq += 1
        message = Message("infer", self.seq, session, deadline_ms)
        self.scheduler.put(Request(Nobody(client.encode()), message, observation(session=session, **seen), now, now))
        return self.seq

    def reset(self, session: str, client: str = "one", now: float = 0.0) -> int:
        self.seq += 1
        self.scheduler.put(Request(Nobody(client.encode()), Message("reset", self.seq, session), None, now, now))
        return self.seq

    def run(self, now: float = 0.0) -> list[tuple[int, Result]]:
        """Start what is next, wait for it and take its results."""
        assert self.scheduler.start_next(now) == []
        assert self.scheduler.busy
        assert self.ended.acquire(timeout=30)
        return [(request.message.seq, result) for request, result in self.scheduler.take_finished(now)]

    def ask(self, session: str, client: str, now: float = 0.0, **seen: Any) -> Result:
        self.put(session, client, now, **seen)
        ((_, result),) = self.run(now)
        return result


def same(left: Result, right: Result) -> bool:
    assert isinstance(left, ActionChunk)
    assert isinstance(right, ActionChunk)
    return np.array_equal(left.actions, right.actions)


def opened(policy: Gated) -> Gated:
    """With a gate that lets everything through."""
    policy.gate.release(1000)
    return policy


def test_the_policy_forgets_a_session_before_another_client_uses_its_name() -> None:
    bench = Bench(Digest())
    first = bench.ask("default", "one")
    assert not same(bench.ask("default", "one"), first)
    assert same(bench.ask("default", "two"), first)
    assert same(bench.ask("default", "one"), first)


def test_the_policy_forgets_sessions_that_nobody_uses() -> None:
    policy = Digest()
    bench = Bench(policy, idle=10.0)
    first = bench.ask("a", "one", now=0.0)
    bench.ask("b", "one", now=5.0)
    assert bench.scheduler.patience(5.0) == 5000
    assert bench.run(now=10.0) == []
    assert list(policy.asked) == ["b"]
    assert bench.scheduler.load(10.0) == {"busy_ms": None, "pending": 0, "sessions": 1}
    assert same(bench.ask("a", "one", now=11.0), first)


def test_after_a_reset_there_is_nothing_to_forget() -> None:
    policy = opened(Gated())
    bench = Bench(policy)
    bench.ask("a", "one")
    bench.reset("a")
    bench.run()
    bench.ask("a", "two")
    assert [kind for kind, _, _ in policy.order] == ["infer", "reset", "infer"]
    assert bench.scheduler.patience(0.0) == 600_000


def test_what_a_policy_kept_of_a_failed_answer_is_forgotten_before_the_next() -> None:
    class FailsAfterLooking(Digest):
        def infer(self, observation: Any) -> ActionChunk:
            chunk = super().infer(observation)
            if observation.step == 7:
                raise ZeroDivisionError("halfway")
            return chunk

    bench = Bench(FailsAfterLooking())
    first = bench.ask("a", "one")
    assert isinstance(bench.ask("a", "one", step=7), ZeroDivisionError)
    assert same(bench.ask("a", "one"), first)


def test_nobody_is_answered_from_a_memory_that_the_policy_cannot_forget(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Digest):
        def reset(self, session: str) -> None:
            raise OSError("cannot")

    bench = Bench(Stubborn())
    bench.ask("default", "one")
    for _ in range(2):
        with caplog.at_level(logging.ERROR):
            result = bench.ask("default", "two")
        assert isinstance(result, RuntimeError)
        assert "could not forget: cannot" in str(result)
    assert "could not forget sessions ['default']" in caplog.text


def test_the_expired_are_handed_back_and_the_policy_never_sees_them() -> None:
    policy = opened(Gated())
    bench = Bench(policy)
    bench.put("a", "one", now=0.0, deadline_ms=10.0)
    bench.put("b", "two", now=0.0, deadline_ms=1000.0)
    assert [request.session for request in bench.scheduler.start_next(0.5)] == ["a"]
    assert bench.ended.acquire(timeout=30)
    bench.scheduler.take_finished(0.5)
    assert policy.order == [("infer", "b", 0)]


def test_those_that_wait_are_answered_together_as_if_alone() -> None:
    policy = Batched()
    bench = Bench(opened(policy), Batching(max_batch=3))
    numbers = [bench.put(f"s{robot}", f"robot {robot}") for robot in range(4)]
    answers = [bench.run(), bench.run()]
    assert [[seq for seq, _ in batch] for batch in answers] == [numbers[:3], numbers[3:]]
    assert policy.batches == [["s0", "s1", "s2"]]
    alone = Digest()
    for robot, (_, result) in enumerate(answer for batch in answers for answer in batch):
        assert same(result, alone.infer(observation(session=f"s{robot}")))


def test_an_idle_policy_holds_back_until_the_batch_is_full_or_the_wait_is_over() -> None:
    bench = Bench(opened(Batched()), Batching(max_batch=2, max_wait_ms=62.5))
    bench.put("a", "one", now=1.0)
    bench.scheduler.start_next(1.03125)
    assert not bench.scheduler.busy
    assert bench.scheduler.patience(1.03125) == 32  # [ms], rounded up
    assert len(bench.run(now=1.0625)) == 1  # the wait is over

    bench.put("a", "one", now=2.0)
    bench.put("b", "two", now=2.0)
    assert bench.scheduler.patience(2.0) == 0
    assert len(bench.run(now=2.0)) == 2  # the batch is full

    bench.put("a", "one", now=3.0)
    bench.reset("b", "two", now=3.0)
    assert len(bench.run(now=3.0)) == 1  # a reset is never held back
    assert len(bench.run(now=3.0)) == 1


def test_one_at_a_time_never_waits() -> None:
    bench = Bench(Digest(), Batching(max_batch=1, max_wait_ms=1000.0))
    bench.put("a", "one")
    assert len(bench.run(now=0.0)) == 1


def test_one_robot_s_mistake_is_answered_to_that_robot_alone() -> None:
    bench = Bench(opened(Batched()), Batching(max_batch=3))
    instructions = ["lift", "refuse", "fail"]
    for robot, instruction in enumerate(instructions):
        bench.put(f"s{robot}", f"robot {robot}", instruction=instruction)
    good, refused, failed = (result for _, result in bench.run())
    assert same(good, Digest().infer(observation(session="s0", instruction="lift")))
    assert isinstance(refused, InputError)
    assert isinstance(failed, ZeroDivisionError)


def test_actions_that_are_not_finite_are_the_policy_s_failure() -> None:
    class Diverged(Digest):
        def infer(self, observation: Any) -> ActionChunk:
            return ActionChunk(np.full((5, 3), np.nan, np.float32), SPEC.period)

    result = Bench(Diverged()).ask("a", "one")
    assert isinstance(result, RuntimeError)
    assert "no usable actions: actions holds values that are not finite" in str(result)


class Spoiled(Batched):
    """Writes what is no number into actions after they were checked, when told to."""

    def infer(self, observation: Observation) -> ActionChunk:
        return self._spoiled(observation, super().infer(observation))

    def infer_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        chunks = super().infer_batch(observations)
        return [self._spoiled(seen, chunk) for seen, chunk in zip(observations, chunks, strict=True)]

    def _spoiled(self, seen: Observation, chunk: ActionChunk) -> ActionChunk:
        if seen.instruction == "spoil":
            chunk.actions[1, 2] = np.inf
        return chunk


@pytest.mark.parametrize("others", [0, 2])
def test_actions_that_were_finite_once_are_the_policy_s_failure_too(others: int) -> None:
    bench = Bench(opened(Spoiled()), Batching(max_batch=3))
    bench.put("s", "robot", instruction="spoil")
    for robot in range(others):
        bench.put(f"s{robot}", f"robot {robot}")
    spoiled, *good = (result for _, result in bench.run())
    assert isinstance(spoiled, RuntimeError)
    assert "no usable actions: actions holds values that are not finite: [inf]" in str(spoiled)
    assert [isinstance(result, ActionChunk) for result in good] == [True] * others


def test_batching_needs_a_policy_that_can() -> None:
    with pytest.raises(InputError, match="digest answers one observation at a time: max_batch must be 1"):
        Scheduler(Digest(), print, Batching(max_batch=2), 600.0)


@pytest.mark.parametrize("values", [{"max_batch": 0}, {"max_batch": True}, {"max_wait_ms": -1}, {"max_wait_ms": "1"}])
def test_batching_is_checked(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))} must be a"):
        Batching(**values)


def test_warming_up_runs_every_batch_size_and_leaves_nothing_behind() -> None:
    policy = Batched()
    warm_up(opened(policy), max_batch=3)
    assert {len(batch) for batch in policy.batches} == {2, 3}
    assert policy.asked == {}


def test_a_scheduler_that_nobody_closed_lets_its_program_end() -> None:
    program = """
from tests.policies import Digest
from tests.policy_server.test_scheduler import Bench

Bench(Digest()).ask("default", "one")
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
