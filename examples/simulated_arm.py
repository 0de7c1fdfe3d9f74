"""A simulated arm at 50 Hz, driven over TCP by a policy server in another process (numpy and pyzmq only).

python examples/simulated_arm.py                           # starts its own server with a simple policy
python examples/simulated_arm.py --mode ensemble --faults  # the server fails, is killed and comes back
cadence-serve endpoint=tcp://127.0.0.1:5555                # or any policy:
python examples/simulated_arm.py --endpoint tcp://127.0.0.1:5555 --instruction "put the spoon on the towel"
"""

import argparse
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from policy_server.client import RemotePolicy
from policy_server.control_loop import ControlLoop
from policy_server.report import percentile_ms
from policy_server.robot import Limits, Sensed
from policy_server.server import PolicyServer
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity
from vla.chunking import AdaptiveEnsemble, Chunking, OpenLoop, RealTimeChunking

PERIOD = 0.02  # [s]
AXES = 3
MODES = {
    "open_loop": lambda: OpenLoop(execute=25),
    "ensemble": lambda: AdaptiveEnsemble(horizon=7),
    "rtc": lambda: RealTimeChunking(execute=15),
}


class SimulatedArm:
    """A hand on critically damped springs that pull it to the commanded position; it follows about 0.1 s behind.

    It has as many columns as the policy has actions; those called `d…` or `rotation…` are changes, others positions.
    """

    STIFFNESS = 20.0  # [1/s], of the springs
    SUBSTEPS = 20

    def __init__(self, spec: PolicySpec) -> None:
        names = [action.name for action in spec.actions]
        relative = [name.startswith(("d", "rotation")) for name in names]
        count, free = len(names), len(names) - AXES
        self.period = PERIOD
        self.limits = Limits(
            relative,
            step=[0.02] * AXES + [np.inf] * free,
            low=[-0.5] * AXES + [-np.inf] * free,
            high=[0.5] * AXES + [np.inf] * free,
        )
        self._spec = spec
        self._goal, self.at, self._speed = np.zeros(count), np.zeros(count), np.zeros(count)

    def observe(self) -> Sensed:
        images = {camera.name: self._image(camera) for camera in self._spec.cameras}
        state = np.resize(self.at, len(self._spec.state)).astype(np.float32)
        return Sensed(images, state if self._spec.state else None)

    def position(self) -> NDArray[np.floating]:
        return self._goal

    def apply(self, action: NDArray[np.float32]) -> None:
        self._goal = np.where(self.limits.relative, self._goal + action, action)
        self._move()

    def hold(self) -> None:
        self._move()

    def stop(self) -> None:
        self._goal, self._speed = self.at.copy(), np.zeros_like(self._speed)

    def _move(self) -> None:
        """One period of its dynamics, by semi-implicit Euler steps."""
        step = self.period / self.SUBSTEPS
        for _ in range(self.SUBSTEPS):
            pull = self.STIFFNESS**2 * (self._goal - self.at) - 2 * self.STIFFNESS * self._speed
            self._speed = self._speed + step * pull
            self.at = self.at + step * self._speed

    def _image(self, camera: Camera) -> NDArray[np.uint8]:
        """A bright square on black where the hand is, seen from above."""
        image = np.zeros((camera.height, camera.width, 3), np.uint8)
        row, column = ((self.at[:2] + 0.5) * (camera.height, camera.width)).astype(int)
        image[max(0, row - 4) : row + 4, max(0, column - 4) : column + 4] = 255
        return image


class Reach:
    """Moves the hand in a straight line to the three numbers [m] of the instruction, at 0.2 m/s, and opens the gripper.

    Args:
        latency: [s] that it thinks.
        faults: now and then be much slower, raise, or answer NaN.
    """

    SPEED = 0.2  # [m/s]

    def __init__(self, latency: float = 0.06, faults: bool = False) -> None:
        axes = [Quantity(f"d{axis}", "m") for axis in "xyz"]
        self.spec = PolicySpec(
            cameras=(Camera("top", 64, 64),),
            state=tuple(Quantity(axis, "m") for axis in "xyz"),
            actions=(*axes, Quantity("gripper", "1")),
            horizon=50,
            period=PERIOD,
            model="reach",
            inpaints=True,
        )
        self._latency, self._faults, self._asked = latency, faults, 0

    def infer(self, observation: Observation) -> ActionChunk:
        time.sleep(self._latency)
        self._asked += 1
        committed = np.empty((0, AXES + 1), np.float32)
        if observation.committed is not None:
            committed = observation.committed[: observation.frozen]
        if self._faults:
            self._fail()
        assert observation.state is not None
        start = observation.state + committed[:, :AXES].sum(axis=0)
        way = np.array(observation.instruction.split()[-AXES:], np.float32) - start
        length = float(np.linalg.norm(way))
        done = np.minimum(np.arange(self.spec.horizon + 1) * self.SPEED * PERIOD / max(length, 1e-6), 1.0)
        moves = np.diff(done)[:, None] * way  # (horizon, 3)
        rows = np.concatenate([moves, np.ones((len(moves), 1))], axis=1).astype(np.float32)
        return ActionChunk(np.concatenate([committed, rows])[: self.spec.horizon], PERIOD)

    def reset(self, session: str) -> None:
        """It remembers nothing."""

    def _fail(self) -> None:
        if self._asked % 5 == 0:
            time.sleep(1.0)  # beyond the client's deadline
        if self._asked % 7 == 0:
            raise RuntimeError("this policy fails now and then")
        if self._asked % 9 == 0:
            ActionChunk(np.full((self.spec.horizon, AXES + 1), np.nan, np.float32), PERIOD)


def serve(endpoint: str, faults: bool) -> None:
    """What runs in the server's process."""
    with PolicyServer(Reach(faults=faults), endpoint) as server:
        print(server.endpoint, flush=True)
        server.serve_forever()


@contextmanager
def own_server(faults: bool, seconds: float) -> Iterator[str]:
    """The endpoint of a server in a process of its own; with faults it is killed and started again on the way."""
    command = [sys.executable, __file__, *(["--faults"] if faults else []), "--serve"]
    running = [subprocess.Popen([*command, "tcp://127.0.0.1:0"], stdout=subprocess.PIPE, text=True)]
    assert running[0].stdout is not None
    endpoint = running[0].stdout.readline().strip()

    def start_again() -> None:
        running.append(subprocess.Popen([*command, endpoint], stdout=subprocess.DEVNULL, text=True))

    timers = (
        [threading.Timer(0.4 * seconds, running[0].kill), threading.Timer(0.5 * seconds, start_again)] if faults else []
    )
    for timer in timers:
        timer.start()
    try:
        yield endpoint
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        for process in running:
            process.kill()
            process.communicate()


def drive(endpoint: str, instruction: str, chunking: Chunking, seconds: float) -> int:
    """Run one episode and print what happened; 0 if the arm was driven to the end, 1 if it was stopped."""
    with RemotePolicy(endpoint, timeout=0.5) as policy:
        arm = SimulatedArm(policy.spec)
        with ControlLoop(arm, policy, chunking) as loop:
            began = time.monotonic()
            report = loop.run(instruction, f"simulated-arm/{began:.3f}", ticks=round(seconds / PERIOD))
            rate = report.ticks / (time.monotonic() - began)
    print(report)
    print(f"{rate:.1f} commands per second; 99 of 100 late by {percentile_ms(report.lateness, 99):.2f} ms or less")
    print(f"the hand is at {np.round(arm.at[:AXES], 3).tolist()} m")
    return int(report.stopped)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", help="of a running policy server; without it one is started")
    parser.add_argument("--instruction", default="reach 0.3 -0.2 0.25")
    parser.add_argument("--mode", choices=MODES, default="rtc")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--faults", action="store_true", help="slow answers, errors, NaN, and the server killed")
    parser.add_argument("--serve", metavar="ENDPOINT", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve:
        serve(chosen.serve, chosen.faults)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if chosen.endpoint:
        return drive(chosen.endpoint, chosen.instruction, MODES[chosen.mode](), chosen.seconds)
    with own_server(chosen.faults, chosen.seconds) as endpoint:
        return drive(endpoint, chosen.instruction, MODES[chosen.mode](), chosen.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
