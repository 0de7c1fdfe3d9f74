"""Many robots on one server, some of which die: every question has one answer, and it is the asker's own."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from policy_server.client import RemotePolicy
from policy_server.scheduler import Batching
from policy_server.server import PolicyServer
from policy_server.wire import Message
from tests.policies import SPEC, Digest, Gated, observation
from tests.policy_server.sockets import Raw, infer
from vla.api import ActionChunk, Observation

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0
ROBOTS, QUESTIONS = 12, 25

ASK_AND_WAIT = """
import sys
from policy_server.client import RemotePolicy
from tests.policies import observation
with RemotePolicy(sys.argv[1], timeout=60.0) as robot:
    robot.infer(observation(session="victim"))
"""


class Echo(Digest):
    """Answers the state in every row and column that has room."""

    def infer(self, observation: Observation) -> ActionChunk:
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        states = [observation.state for observation in observations if observation.state is not None]
        rows = [np.pad(state, (0, len(SPEC.actions) - len(state))) for state in states]
        return [ActionChunk(np.tile(row, (SPEC.horizon, 1)), SPEC.period) for row in rows]


@pytest.fixture(params=[1, 4])
def echo(request: pytest.FixtureRequest) -> Iterator[PolicyServer]:
    with PolicyServer(Echo(), batching=Batching(request.param)) as server:
        yield server


def test_no_reply_is_lost_or_another_robot_s(echo: PolicyServer) -> None:
    def drive(number: int) -> int:
        right = 0
        with RemotePolicy(echo.endpoint, timeout=PATIENCE) as robot:
            for step in range(QUESTIONS):
                seen = observation(seed=1000 * number + step, session=f"robot {number}", step=step)
                assert seen.state is not None
                right += bool((robot.infer(seen).actions[:, :2] == seen.state).all())
        return right

    with ThreadPoolExecutor(ROBOTS) as threads:
        assert list(threads.map(drive, range(ROBOTS))) == [QUESTIONS] * ROBOTS
    assert echo.tally.snapshot().outcomes == {"answered": ROBOTS * QUESTIONS}


def test_every_message_of_an_overload_has_a_reply_and_nobody_starves(raw: Raw, gated: Gated) -> None:
    """More comes than can be answered: what is not answered is refused by name, and robots take turns."""
    seqs = iter(range(1, 1000))
    raw.send(infer(next(seqs), session="first"))
    assert gated.begun.acquire(timeout=PATIENCE)
    sent = [(f"robot {number}", next(seqs)) for _ in range(3) for number in range(5)]
    for session, seq in sent:
        raw.send(infer(seq, session=session))
    raw.send(Message("health", next(seqs)))
    replies = []
    while (reply := raw.receive()).kind != "health":  # until then messages were still under way
        replies.append(reply)
    gated.gate.release(100)
    replies += [raw.receive() for _ in range(1 + len(sent) - len(replies))]
    assert {reply.seq for reply in replies} == {1, *(seq for _, seq in sent)}
    answered = {reply.session for reply in replies if reply.kind == "infer"}
    assert answered == {"first", *(f"robot {number}" for number in range(5))}
    refused = [reply for reply in replies if reply.kind == "error"]
    assert {reply.body["type"] for reply in refused} == {"superseded"}
    assert len(refused) == 10


def test_a_client_killed_while_it_waits_costs_nobody_else_anything(server: PolicyServer, gated: Gated) -> None:
    command = [sys.executable, "-c", ASK_AND_WAIT, server.endpoint]
    with subprocess.Popen(command, cwd=ROOT) as victim:
        assert gated.begun.acquire(timeout=PATIENCE)
        victim.kill()
    gated.gate.release(2)
    with RemotePolicy(server.endpoint, timeout=PATIENCE) as robot:
        assert robot.infer(observation(session="survivor")).actions.shape == (SPEC.horizon, len(SPEC.actions))
        assert robot.health()["failed"] == 0
        assert robot.metrics()["pending"] == 0
