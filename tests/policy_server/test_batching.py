"""Many robots at one server: answered together, each as if alone, and never from another's memory."""

import numpy as np
import pytest

from policy_server import messages
from policy_server.scheduler import Batching
from policy_server.server import PolicyServer
from tests.policies import SPEC, Batched, Digest, observation
from tests.policy_server.sockets import Connect, error, infer
from vla.api import InputError


def test_robots_that_wait_are_answered_together_each_as_if_alone(connect: Connect) -> None:
    policy = Batched()
    with PolicyServer(policy, batching=Batching(max_batch=4)) as server:
        robots = [connect(server.endpoint) for _ in range(4)]
        robots[0].send(infer(1, session="0"))
        assert policy.begun.acquire(timeout=20)
        for number, robot in enumerate(robots[1:], 1):
            robot.send(infer(1, session=str(number)))
            while robot.ask(messages.Message("health", 2)).body["pending"] != number:
                pass
        policy.gate.release(2)
        replies = [robot.receive() for robot in robots]
    assert policy.batches == [["1", "2", "3"]]
    for number, reply in enumerate(replies):
        expected = Digest().infer(observation(session=str(number)))
        assert np.array_equal(messages.read_actions(reply, SPEC).actions, expected.actions)


def test_robots_that_share_a_session_name_do_not_share_its_memory(connect: Connect) -> None:
    with PolicyServer(Digest()) as server:
        robots = [connect(server.endpoint), connect(server.endpoint)]
        replies = [robots[turn % 2].ask(infer(turn + 1)) for turn in range(4)]
    answers = [messages.read_actions(reply, SPEC).actions for reply in replies]
    for answer in answers:
        assert np.array_equal(answer, answers[0])


def test_a_client_that_floods_is_told_so_and_the_others_are_served(connect: Connect) -> None:
    policy = Batched()
    with PolicyServer(policy) as server:
        greedy, modest = connect(server.endpoint), connect(server.endpoint)
        greedy.send(infer(1, session="0"))
        assert policy.begun.acquire(timeout=20)
        for seq in range(2, 67):
            greedy.send(infer(seq, session=str(seq)))
        assert error(greedy.receive()) == ("overloaded", "64 requests of this client wait already")
        modest.send(infer(1, session="modest"))
        while modest.ask(messages.Message("health", 2)).body["pending"] != 65:
            pass
        policy.gate.release(3)
        assert modest.receive().kind == "infer"
        policy.gate.release(100)
    assert [session for _, session, _ in policy.order[:3]] == ["0", "2", "modest"]


def test_batching_is_refused_before_anything_is_bound() -> None:
    with pytest.raises(InputError, match="max_batch must be 1"):
        PolicyServer(Digest(), batching=Batching(max_batch=2))
