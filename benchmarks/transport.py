"""Round trip of an observation over loopback TCP to an echo policy in another process, beside other projects' servers.

All servers run from the beginning, and contenders take turns, a block of requests each, so that whatever else the
machine does meets all of them. Times are what a robot's program waits: from its arrays to actions in its arrays.
`zeromq` is the floor: the frames that Cadence sends over the sockets that it uses, one thread each, nothing checked.

python -m benchmarks.transport --requests 2000
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import zmq

from benchmarks.peers import PEERS, Client
from policy_server import sockets
from policy_server.client import RemotePolicy
from policy_server.codecs import Codec
from policy_server.security import client_keys, server_keys, write_pair
from policy_server.server import PolicyServer
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity

SIZES = {"2 x 224 x 224": (224, 224), "2 x 480 x 640": (480, 640)}
BLOCK = 50  # requests in a row of one contender; the first block of each is not counted
HORIZON = 16
INSTRUCTION = "put the spoon on the towel"
OURS = {
    "cadence": Codec(),
    "cadence_curve": Codec(),
    "cadence_png": Codec("png"),
    "cadence_jpeg": Codec("jpeg"),
}
HEADER = bytes(400)  # as long as Cadence's
SLOW = ("cadence_png", "cadence_jpeg")  # asked a tenth as often


class Echo:
    """Answers at once; every action is the robot's state."""

    def __init__(self, height: int, width: int) -> None:
        numbers = tuple(Quantity(f"joint_{index}", "rad") for index in range(8))
        cameras = (Camera("front", height, width), Camera("wrist", height, width))
        self.spec = PolicySpec(cameras, numbers, numbers, horizon=HORIZON, period=0.1, model="echo")

    def infer(self, observation: Observation) -> ActionChunk:
        """The state, as often as a chunk has rows."""
        assert observation.state is not None
        return ActionChunk(np.tile(observation.state, (self.spec.horizon, 1)), self.spec.period)

    def reset(self, session: str) -> None:
        """Nothing to forget."""


def serve(name: str, size: tuple[int, int], keys: str, announce: Connection) -> None:
    """In the server's process: serve until the process is ended."""
    pair = server_keys(f"{keys}/server.key_secret", f"{keys}/clients") if name == "cadence_curve" else None
    with PolicyServer(Echo(*size), keys=pair) as server:
        announce.send(server.endpoint)
        server.serve_forever()


class OurClient:
    """RemotePolicy behind the interface of the peers' clients."""

    def __init__(self, name: str, endpoint: str, keys: str) -> None:
        pair = client_keys(f"{keys}/robot.key_secret", f"{keys}/server.key") if name == "cadence_curve" else None
        self._remote = RemotePolicy(endpoint, keys=pair, codec=OURS[name])
        self._step = 0

    def infer(self, images: Mapping[str, Any], state: Any, instruction: str) -> Any:
        """Build the observation, as a robot's program does, and ask."""
        self._step += 1
        return self._remote.infer(Observation(images, instruction, state, step=self._step)).actions

    def close(self) -> None:
        """Disconnect."""
        self._remote.close()


def serve_floor(name: str, horizon: int, announce: Connection) -> None:
    """In the server's process: send the last frame's numbers back, until the process is ended."""
    router = zmq.Context().socket(zmq.ROUTER)
    announce.send(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
    while True:
        envelope, *_, state = sockets.receive(router)
        actions = np.tile(np.frombuffer(state.buffer, np.float32), (horizon, 1))
        sockets.send(router, [envelope.bytes, b"", HEADER, actions.data.cast("B")])


class FloorClient:
    """A DEALER that sends frames."""

    def __init__(self, name: str, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDBUF, sockets.send_buffer(endpoint))
        self._socket.connect(endpoint)

    def infer(self, images: Mapping[str, Any], state: Any, instruction: str) -> Any:
        """One frame an array."""
        arrays = [array.data.cast("B") for array in (*images.values(), state)]
        sockets.send(self._socket, [b"", HEADER, *arrays])
        return np.frombuffer(sockets.receive(self._socket)[-1].buffer, np.float32).reshape(HORIZON, -1)

    def close(self) -> None:
        """Disconnect."""
        self._context.destroy(linger=0)


OTHERS = {**PEERS, "zeromq": (serve_floor, FloorClient)}


def make_keys(folder: Path) -> None:
    """Keys of a server and of the one client that it lets in."""
    write_pair(folder, "server")
    public, _ = write_pair(folder, "robot")
    (folder / "clients").mkdir()
    (folder / "clients" / public.name).write_bytes(public.read_bytes())


def start(name: str, size: tuple[int, int], keys: str, stack: ExitStack) -> Client:
    """Start a contender's server and connect to it; `stack` ends both."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    if name in OURS:
        process = spawn.Process(target=serve, args=(name, size, keys, there), daemon=True)
    else:
        process = spawn.Process(target=OTHERS[name][0], args=(name, HORIZON, there), daemon=True)
    process.start()
    there.close()  # so that a server that dies is noticed
    stack.callback(process.join)
    stack.callback(process.terminate)
    client = OurClient(name, here.recv(), keys) if name in OURS else OTHERS[name][1](name, here.recv())
    stack.callback(client.close)
    return client


def observations(size: tuple[int, int], many: int = 16) -> list[tuple[dict[str, Any], Any]]:
    """Images of two cameras and a state each; more than a processor's cache holds, neither noise nor flat."""
    random = np.random.default_rng(0)
    smooth = np.linspace(0, 200, size[0] * size[1] * 3).reshape(*size, 3)
    made = []
    for _ in range(many):
        noise = random.integers(0, 40, (2, *size, 3))
        images = {name: (smooth + part).astype(np.uint8) for name, part in zip(("front", "wrist"), noise, strict=True)}
        made.append((images, random.normal(size=8).astype(np.float32)))
    return made


def measure(size: tuple[int, int], contenders: list[str], requests: int) -> dict[str, list[float]]:
    """Contender -> [ms] of each request."""
    seen = observations(size)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        keys = stack.enter_context(tempfile.TemporaryDirectory())
        make_keys(Path(keys))
        clients = {name: start(name, size, keys, stack) for name in contenders}
        for block in range(ceil(requests / BLOCK) + 1):
            for name in contenders[block % len(contenders) :] + contenders[: block % len(contenders)]:
                times[name] += ask(clients[name], seen, BLOCK // 10 if name in SLOW else BLOCK)
    return {name: values[BLOCK // 10 if name in SLOW else BLOCK :] for name, values in times.items()}


def ask(client: Client, seen: Sequence[tuple[dict[str, Any], Any]], many: int) -> list[float]:
    """[ms] of each of so many requests in a row."""
    times = []
    for step in range(many):
        images, state = seen[step % len(seen)]
        begun = perf_counter()
        actions = client.infer(images, state, INSTRUCTION)
        times.append(1000 * (perf_counter() - begun))
        assert actions.shape == (HORIZON, 8)
        assert (actions == state).all()
    return times


def report(size: str, megabytes: float, times: dict[str, list[float]]) -> None:
    """Print one line per contender and the ratios."""
    median = {name: float(np.median(values)) for name, values in times.items()}
    for name, values in times.items():
        worst = np.percentile(values, 99)
        print(f"{size:>15} {megabytes:6.2f} {name:>14} {len(values):6d} {median[name]:8.3f} {worst:8.3f}")
    others = {name: value for name, value in median.items() if name not in OURS}
    if "cadence" in median and others:
        parts = [f"{median['cadence'] / value:.2f} x {name}" for name, value in others.items()]
        print(f"{'':>15} cadence: {', '.join(parts)}")
    if {"cadence", "cadence_curve"} <= set(median):
        print(f"{'':>15} CURVE: +{(median['cadence_curve'] - median['cadence']) / megabytes:.2f} ms per MB")


def main() -> None:
    """Measure both image sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*OURS, *OTHERS]
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--contenders", nargs="+", choices=names, default=names)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    options = parser.parse_args()
    print(f"{'cameras':>15} {'MB':>6} {'contender':>14} {'n':>6} {'p50 ms':>8} {'p99 ms':>8}")
    for name in options.sizes:
        height, width = SIZES[name]
        megabytes = 2 * height * width * 3 / 1e6
        report(name, megabytes, measure((height, width), options.contenders, options.requests))


if __name__ == "__main__":
    main()
