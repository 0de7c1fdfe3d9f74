"""A robot at 50 Hz while everything behind it goes wrong: does every period have a command, and when does it begin?

    python -m benchmarks.faults                      # every fault, 8 s each
    python -m benchmarks.faults --faults cut killed

The server is another process; between it and the robot lies a proxy that can drop bytes. Printed: periods, how many had
an action of the policy and how many the robot's own hold, how late periods began (jitter), and what the loop counted.
"""

import argparse
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import numpy as np
from numpy.typing import NDArray

from benchmarks.network import Network
from policy_server.client import RemotePolicy
from policy_server.control_loop import ControlLoop
from policy_server.report import Report, percentile_ms
from policy_server.robot import Limits, Sensed
from policy_server.server import PolicyServer
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity
from vla.chunking import OpenLoop

PERIOD, HORIZON, EXECUTE = 0.02, 20, 10
DEADLINE = 0.3  # [s]
SHARE = 0.3  # of the answers that are late, raised or not finite
SIZE = 224
ACTIONS = tuple(Quantity(name, unit) for name, unit in (("x", "m"), ("y", "m"), ("z", "m"), ("gripper", "1")))
SPEC = PolicySpec((Camera("front", SIZE, SIZE),), (), ACTIONS, HORIZON, PERIOD, model="faulty")
FAULTS = ("none", "slow", "late", "raises", "nan", "cut", "killed")
PATIENCE = 30.0


class Faulty:
    """Takes 20 ms for an answer, and has one fault."""

    def __init__(self, fault: str) -> None:
        self.spec = SPEC
        self._fault, self._random = fault, np.random.default_rng(0)

    def infer(self, observation: Observation) -> ActionChunk:
        struck = self._random.uniform() < SHARE
        late = (self._fault == "late" and struck) or self._fault == "slow"
        sleep(0.02 + (2 * DEADLINE if self._fault == "late" else 0.15) * late)
        if self._fault == "raises" and struck:
            raise MemoryError("out of memory")
        chunk = ActionChunk(np.zeros((HORIZON, len(ACTIONS)), np.float32), PERIOD)
        if self._fault == "nan" and struck:
            chunk.actions[:] = np.nan
        return chunk

    def reset(self, session: str) -> None:
        """Nothing is remembered."""


class Arm:
    """Counts what it is told."""

    period = PERIOD

    def __init__(self) -> None:
        self.limits = Limits.none([False] * len(ACTIONS))
        self.commands = 0
        self._image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)

    def observe(self) -> Sensed:
        return Sensed({"front": self._image}, None)

    def position(self) -> NDArray[np.floating]:
        return np.zeros(len(ACTIONS))

    def apply(self, action: NDArray[np.float32]) -> None:
        assert np.isfinite(action).all()
        self.commands += 1

    def hold(self) -> None:
        self.commands += 1

    def stop(self) -> None:
        self.commands += 1


@contextmanager
def server(fault: str, endpoint: str = "tcp://127.0.0.1:0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its endpoint."""
    command = [sys.executable, "-m", "benchmarks.faults", "--serve", fault, "--endpoint", endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def serve(fault: str, endpoint: str) -> None:
    """In the server's process."""
    with PolicyServer(Faulty(fault), endpoint) as running:
        print(running.endpoint, flush=True)
        running.serve_forever()


def strike(fault: str, process: subprocess.Popen[str], network: Network, endpoint: str, seconds: float) -> None:
    """Cut the network for a while, or kill the server and start another."""
    began = monotonic()
    sleep(seconds / 4)
    if fault == "cut":
        network.cut = True
        sleep(seconds / 4)
        network.cut = False
    elif fault == "killed":
        process.kill()
        process.wait()
        sleep(seconds / 8)
        with server("none", endpoint):
            sleep(max(0.0, began + seconds - monotonic()))


def measure(fault: str, seconds: float) -> tuple[Report, int]:
    """What the loop reports of one fault, and how often the robot was told something."""
    arm = Arm()
    with server(fault) as (process, endpoint):
        network = Network(endpoint)
        with RemotePolicy(network.endpoint, timeout=PATIENCE) as remote:
            remote.timeout = DEADLINE
            with ControlLoop(arm, remote, OpenLoop(EXECUTE), stop_after=seconds) as loop:
                striking = threading.Thread(target=strike, args=(fault, process, network, endpoint, seconds))
                striking.start()
                report = loop.run("hold still", fault, round(seconds / PERIOD))
                striking.join()
    return report, arm.commands


def main() -> None:
    """Print one line per fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--serve", choices=FAULTS, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.endpoint)
        return
    logging.disable()
    print(f"{'fault':>8} {'periods':>8} {'actions':>8} {'holds':>6} {'late p50':>9} {'p99':>7} {'max ms':>7}  counted")
    for fault in options.faults:
        report, commands = measure(fault, options.seconds)
        assert commands == report.ticks + (not report.stopped), "a period without a command"  # and the last hold
        late = [percentile_ms(report.lateness, percent) for percent in (50, 99, 100)]
        counts = ", ".join(f"{kind} {count}" for kind, count in sorted(report.interventions.items())) or "nothing"
        print(f"{fault:>8} {report.ticks:8} {report.actions:8} {report.holds:6} ", end="")
        print(f"{late[0]:9.2f} {late[1]:7.2f} {late[2]:7.2f}  {counts}", flush=True)


if __name__ == "__main__":
    main()
