"""Servers that are killed and networks that are cut: the robot holds, and whatever comes back is used again."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.network import Network
from policy_server.client import RemotePolicy
from policy_server.control_loop import Command, ControlLoop
from policy_server.server import PolicyServer
from tests.policies import Digest
from tests.policy_server.arms import Delayed, FakeClock
from tests.policy_server.driven import PATIENCE, Driven, Seeing
from vla.api import ActionChunk, Observation
from vla.chunking import AdaptiveEnsemble, Chunking, OpenLoop

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def network() -> Iterator[Network]:
    with PolicyServer(Digest()) as server:
        between = Network(server.endpoint)
        yield between
        between.close()


def test_after_a_cut_network_the_policy_is_used_again(network: Network) -> None:
    with RemotePolicy(network.endpoint, timeout=PATIENCE) as remote:
        driven = Driven(remote)
        driven.next_action()
        network.cut, remote.timeout = True, 0.05
        driven.next_error()
        driven.next_error()
        network.cut, remote.timeout = False, PATIENCE
        driven.next_action()
        driven.loop.close()
    assert driven.loop.report.actions == 2


def test_a_server_stopped_and_restarted_mid_episode_is_used_again() -> None:
    with PolicyServer(Digest()) as server:
        remote = RemotePolicy(server.endpoint, timeout=PATIENCE)
        driven = Driven(remote)
        driven.next_action()
    remote.timeout = 0.05
    driven.next_error()
    remote.timeout = PATIENCE
    with remote, PolicyServer(Digest(), server.endpoint):
        driven.next_action()
        driven.loop.close()
    assert driven.loop.report.actions == 2


def test_a_server_killed_while_it_thinks_is_used_again_when_another_takes_its_place() -> None:
    command = [sys.executable, "-m", "tests.policies"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        remote = RemotePolicy(endpoint, timeout=PATIENCE)
        remote.timeout = 1.0
        driven = Driven(remote, "hang")
        assert driven.tick() is Command.HOLD
        assert process.stdout.readline().strip() == "hanging"
        process.kill()
    driven.next_error()
    driven.settle()
    remote.timeout = PATIENCE
    with remote, PolicyServer(Digest(), endpoint):
        driven.next_action()
        driven.loop.close()
    assert driven.loop.report.actions == 1


def test_answers_beyond_the_deadline_are_never_executed(network: Network) -> None:
    with RemotePolicy(network.endpoint, timeout=PATIENCE) as remote:
        driven = Driven(remote)
        for _ in range(3):
            driven.next_action()
            remote.timeout = 1e-6  # every answer is late
            driven.next_error()
            remote.timeout = PATIENCE
        driven.next_action()
        driven.loop.close()
    report = driven.loop.report
    assert (report.actions, report.chunks, report.interventions) == (4, 4, {"policy_error": 3})


class Withholding(Digest):
    """Digest that keeps an answer back while `withheld` is not set; remembers the actions that it kept back."""

    withheld = threading.Event()

    def __init__(self) -> None:
        super().__init__()
        self.late: list[NDArray[np.float32]] = []

    def infer(self, observation: Observation) -> ActionChunk:
        chunk, withheld = super().infer(observation), self.withheld
        if not withheld.is_set():
            self.late.append(chunk.actions[0])
            assert withheld.wait(PATIENCE)
        return chunk


class Hurried:
    """A client of this policy: of ten answers three, no two in a row, leave when it has given them up."""

    def __init__(self, remote: RemotePolicy, policy: Withholding) -> None:
        self.spec = remote.spec
        self.reset = remote.reset
        self.asked = self.late = 0
        self._remote, self._policy = remote, policy

    def infer(self, observation: Observation) -> ActionChunk:
        late = self.asked % 10 in (3, 6, 9)
        self.asked, self.late = self.asked + 1, self.late + late
        self._policy.withheld = withheld = threading.Event()
        self._remote.timeout = 0.02 if late else PATIENCE
        if not late:
            withheld.set()
        try:
            return self._remote.infer(observation)
        finally:
            withheld.set()


@pytest.fixture
def hurried() -> Iterator[tuple[Hurried, Withholding]]:
    policy = Withholding()
    with PolicyServer(policy) as server, RemotePolicy(server.endpoint, timeout=PATIENCE) as remote:
        yield Hurried(remote, policy), policy


def test_of_answers_that_are_late_each_costs_one_period_and_none_is_executed(
    hurried: tuple[Hurried, Withholding],
) -> None:
    """The clock stands still while the policy is asked, so that an answer in time costs no period."""
    client, policy = hurried
    arm, clock = Seeing(), FakeClock()
    loop = ControlLoop(arm, client, OpenLoop(1), clock=clock, asker=Delayed(client, clock))
    report = loop.run("lift", "s", ticks=100)
    assert (client.asked, client.late) == (100, 30)
    assert (report.ticks, report.actions, report.holds) == (100, 70, 30)
    assert len(arm.told) == 100 + 1  # the last leaves it holding
    assert report.interventions == {"policy_error": 30}
    executed = {action.tobytes() for action in arm.actions}
    assert len(executed) == 70
    assert executed.isdisjoint(action.tobytes() for action in policy.late)


@pytest.mark.parametrize("chunking", [OpenLoop(1), AdaptiveEnsemble(4)])
def test_while_answers_are_late_every_period_has_one_command(
    hurried: tuple[Hurried, Withholding], chunking: Chunking
) -> None:
    """As on a robot: a thread of its own asks. Chunks that reach beyond a late answer are gone on with."""
    client, _ = hurried
    driven = Driven(client, chunking=chunking)
    while client.asked < 100:
        driven.tick()
        driven.settle()
    driven.loop.close()
    report = driven.loop.report
    assert report.ticks == report.actions + report.holds == len(driven.arm.told)
    assert report.chunks == 70
    assert report.interventions in ({"policy_error": 30}, {"policy_error": 29})  # the last one may not be taken
    if isinstance(chunking, OpenLoop):
        assert report.actions == report.chunks
    else:
        assert report.holds <= 1 < report.actions


class Sick(Digest):
    """Digest that raises or answers what is no number, as long as `fault` says so."""

    fault = ""

    def infer(self, observation: Observation) -> ActionChunk:
        if self.fault == "raises":
            raise MemoryError("out of memory")
        chunk = super().infer(observation)
        if self.fault == "nan":
            chunk.actions[1, 0] = np.nan  # after the chunk was checked
        return chunk


@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_policy_that_raises_or_answers_nan_never_moves_the_robot(fault: str) -> None:
    policy = Sick()
    with PolicyServer(policy) as server, RemotePolicy(server.endpoint, timeout=PATIENCE) as remote:
        driven = Driven(remote)
        driven.next_action()
        policy.fault = fault
        driven.next_error()
        driven.next_error()
        policy.fault = ""
        driven.next_action()
        driven.loop.close()
    report = driven.loop.report
    assert report.actions == 2
    assert report.ticks == report.actions + report.holds
    assert len(driven.arm.told) == report.ticks
    assert np.isfinite(driven.arm.actions).all()
