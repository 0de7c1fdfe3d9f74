"""A complete client for your own arm: put your driver's calls into the six methods of MyArm.

pip install .                                              # in a checkout: numpy and pyzmq, nothing else
python examples/robot_client.py tcp://127.0.0.1:5555 "put the spoon on the towel"
"""

import argparse
import logging
import signal
import time

import numpy as np
from numpy.typing import NDArray

from policy_server.client import RemotePolicy
from policy_server.control_loop import ControlLoop
from policy_server.robot import Limits, Sensed, Speed
from vla.chunking import RealTimeChunking


class MyArm:
    """Moves its gripper by small steps (x, y, z, rotation vector) and opens (1) or closes (-1) it."""

    period = 0.2  # [s] between commands
    limits = Limits(
        relative=[True] * 6 + [False],
        step=[0.05] * 3 + [0.3] * 3 + [np.inf],  # [m], [rad] for one command
        low=[0.15, -0.25, 0.02] + [-np.inf] * 4,  # [m] workspace
        high=[0.45, 0.25, 0.40] + [np.inf] * 4,
        speeds=(Speed((0, 1, 2), limit=0.25),),  # [m/s]
    )

    def __init__(self) -> None:
        self._target = np.array([0.3, 0.0, 0.2, 0.0, 0.0, 0.0, 1.0])

    def observe(self) -> Sensed:
        image = np.zeros((224, 224, 3), np.uint8)  # your camera's newest frame, RGB
        return Sensed({"3rd_view_camera": image}, self._target.astype(np.float32))

    def position(self) -> NDArray[np.floating]:
        return self._target  # what your driver measures

    def apply(self, action: NDArray[np.float32]) -> None:
        self._target[:6] += action[:6]
        self._target[6] = action[6]
        self._send()

    def hold(self) -> None:
        self._send()  # the last target again

    def stop(self) -> None:
        self._send()  # your driver's controlled stop

    def _send(self) -> None:
        """Hand self._target to your driver; it must not wait until the arm is there."""


def main(arguments: list[str] | None = None) -> int:
    """Run one episode; 0 if it ended by itself, 1 if the arm was stopped."""
    parser = argparse.ArgumentParser(description="Drive one arm with a served policy.")
    parser.add_argument("endpoint", help="of cadence-serve, for example tcp://127.0.0.1:5555")
    parser.add_argument("instruction")
    parser.add_argument("--seconds", type=float, default=30.0)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    arm = MyArm()
    with (
        RemotePolicy(chosen.endpoint, timeout=2.0) as policy,
        ControlLoop(arm, policy, RealTimeChunking(execute=4), stop_after=10.0) as loop,
    ):
        signal.signal(signal.SIGTERM, lambda *_: loop.stop())  # Ctrl-C stops the arm too
        session = f"my-arm/{time.time():.0f}"  # one robot, one episode
        report = loop.run(chosen.instruction, session, ticks=round(chosen.seconds / arm.period))
    print(report)
    return int(report.stopped)


if __name__ == "__main__":
    raise SystemExit(main())
