"""Round trip of an observation over loopback TCP to an echo policy in another process: p50 and p99.

python benchmarks/transport.py --requests 2000
"""

import argparse
import multiprocessing
from multiprocessing.connection import Connection

import numpy as np

from policy_server.client import RemotePolicy
from policy_server.server import PolicyServer
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity

SIZES = {"2 x 224 x 224": (224, 224), "2 x 480 x 640": (480, 640)}
WARM_UP = 50


class Echo:
    """Answers at once; every action is the robot's state."""

    def __init__(self, height: int, width: int) -> None:
        numbers = tuple(Quantity(f"joint_{index}", "rad") for index in range(8))
        cameras = (Camera("front", height, width), Camera("wrist", height, width))
        self.spec = PolicySpec(cameras, numbers, numbers, horizon=16, period=0.1, model="echo")

    def infer(self, observation: Observation) -> ActionChunk:
        assert observation.state is not None
        return ActionChunk(np.tile(observation.state, (self.spec.horizon, 1)), self.spec.period)

    def reset(self, session: str) -> None:
        """Nothing to forget."""


def serve(height: int, width: int, announce: Connection, stop: Connection) -> None:
    """In the server's process: serve until told to stop."""
    with PolicyServer(Echo(height, width)) as server:
        announce.send(server.endpoint)
        stop.recv()


def measure(height: int, width: int, requests: int) -> list[dict[str, float]]:
    """`timing` of each request, in order."""
    spawn = multiprocessing.get_context("spawn")
    endpoint_here, endpoint_there = spawn.Pipe(duplex=False)
    stop_there, stop_here = spawn.Pipe(duplex=False)
    process = spawn.Process(target=serve, args=(height, width, endpoint_there, stop_there))
    process.start()
    random = np.random.default_rng(0)
    with RemotePolicy(endpoint_here.recv()) as remote:
        timings = []
        for step in range(requests + WARM_UP):
            images = {
                camera.name: random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                for camera in remote.spec.cameras
            }
            state = random.normal(size=len(remote.spec.state)).astype(np.float32)
            chunk = remote.infer(Observation(images, "put the spoon on the towel", state, step=step))
            timings.append(dict(chunk.timing))
    stop_here.send(None)
    process.join()
    return timings[WARM_UP:]


def main() -> None:
    """Print one line per image size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    print(f"{'cameras':>15} {'MB':>6} {'p50 ms':>8} {'p99 ms':>8} {'server p50 ms':>14}   ({requests} requests)")
    for name, (height, width) in SIZES.items():
        timings = measure(height, width, requests)
        median, worst = np.percentile([timing["round_trip"] for timing in timings], [50, 99])
        server = np.median([timing["server"] for timing in timings])
        print(f"{name:>15} {2 * height * width * 3 / 1e6:6.2f} {median:8.3f} {worst:8.3f} {server:14.3f}")


if __name__ == "__main__":
    main()
