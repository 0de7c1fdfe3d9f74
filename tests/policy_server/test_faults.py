"""Servers that are killed and networks that are cut: the robot holds, and whatever comes back is used again."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.network import Network
from policy_server.client import RemotePolicy
from policy_server.control_loop import Command
from policy_server.server import PolicyServer
from tests.policies import Digest
from tests.policy_server.driven import PATIENCE, Driven
from vla.api import ActionChunk, Observation

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
