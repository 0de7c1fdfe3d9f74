"""Many robots on one server: 50 clients in processes of their own, each at 10 Hz, against a policy of 5 ms a call.

    python -m benchmarks.load                                  # batched: the policy keeps up
    python -m benchmarks.load --max-batch 1                    # it cannot: 500 requests/s, 200 answers/s; who starves?
    python -m benchmarks.load --record /tmp/recording          # what recording costs

Every request must be answered: with actions, or with an error that says why not. Memory is what the kernel calls
resident; the server's is read once a second from its own `metrics`, over the wire, while it is under load.
"""

import argparse
import multiprocessing
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import numpy as np

from policy_server.client import PolicyUnavailable, RemoteError, RemotePolicy
from policy_server.pace import MonotonicClock, paced
from policy_server.tally import resident_bytes
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity

PERIOD = 0.1  # [s]
SETTLED = 5.0  # [s] after which memory counts


@dataclass(frozen=True)
class Load:
    """One run.

    Attributes:
        clients: robots.
        seconds: [s] that each asks.
        policy_ms: [ms] of one call of the policy, whatever its batch.
        max_batch: most observations in one call.
        size: height and width [px] of both cameras.
        timeout: [s] after which a client calls an answer lost.
        record: folder to record to, or None.
    """

    clients: int = 50
    seconds: float = 60.0
    policy_ms: float = 5.0
    max_batch: int = 16
    size: int = 224
    timeout: float = 5.0
    record: str | None = None


@dataclass(frozen=True)
class Client:
    """What one robot met.

    Attributes:
        outcomes: answered, lost, or the error type of a refusal -> how often.
        round_trips: [ms] of the answered.
        lateness: [ms] of the beginning of each period.
        missed: periods in which nothing was asked, because the answer before took longer.
        resident: bytes at the end.
    """

    outcomes: dict[str, int]
    round_trips: list[float]
    lateness: list[float]
    missed: int
    resident: int


class FiveMilliseconds:
    """Waits as a GPU would, then answers the state, for a whole batch at once."""

    def __init__(self, load: Load) -> None:
        numbers = tuple(Quantity(f"joint_{index}", "rad") for index in range(8))
        cameras = (Camera("front", load.size, load.size), Camera("wrist", load.size, load.size))
        self.spec = PolicySpec(cameras, numbers, numbers, horizon=16, period=PERIOD, model="five_milliseconds")
        self._seconds = load.policy_ms / 1000
        self._never = threading.Event()

    def infer(self, observation: Observation) -> ActionChunk:
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self._never.wait(self._seconds)
        states = [observation.state for observation in observations]
        return [ActionChunk(np.tile(s, (self.spec.horizon, 1)), PERIOD) for s in states if s is not None]

    def reset(self, session: str) -> None:
        """Nothing is remembered."""


def serve(load: Load, announce: Connection, stop: Connection) -> None:
    """In the server's process: serve until told to stop."""
    from policy_server.scheduler import Batching  # here, so that the clients' processes do not load it
    from policy_server.server import PolicyServer

    policy = FiveMilliseconds(load)
    with ExitStack() as stack:
        watchers = []
        if load.record:
            from policy_server.recorder import Recorder

            watchers = [Recorder(load.record, policy.spec)]
            stack.callback(watchers[0].close)
        server = stack.enter_context(PolicyServer(policy, batching=Batching(load.max_batch), watchers=watchers))
        announce.send(server.endpoint)
        stop.recv()


def drive(load: Load, number: int, endpoint: str, results: Connection) -> None:
    """In a robot's process: ask at 10 Hz; a period that was missed is not made up for."""
    random = np.random.default_rng(number)
    images = {name: random.integers(0, 256, (load.size, load.size, 3), dtype=np.uint8) for name in ("front", "wrist")}
    state = random.normal(size=8).astype(np.float32)
    outcomes: Counter[str] = Counter()
    round_trips, lateness, missed = [], [], []
    with RemotePolicy(endpoint, timeout=60.0) as remote:
        remote.timeout = load.timeout
        results.send(None)
        results.recv()  # all begin together, spread over a period
        threading.Event().wait(PERIOD * number / load.clients)
        end = perf_counter() + load.seconds
        for step, _ in enumerate(paced(MonotonicClock(), PERIOD, None, lateness.append, missed.append)):
            if perf_counter() >= end:
                break
            seen = Observation(images, "put the spoon on the towel", state, session=f"robot-{number}", step=step)
            outcome, milliseconds = ask(remote, seen)
            outcomes[outcome] += 1
            round_trips += [milliseconds] if outcome == "answered" else []
    late = [1000 * value for value in lateness]
    results.send(Client(dict(outcomes), round_trips, late, sum(missed), resident_bytes() or 0))


def ask(remote: RemotePolicy, seen: Observation) -> tuple[str, float]:
    """What came of it, and its milliseconds; the answer must be this robot's own."""
    started = perf_counter()
    try:
        chunk = remote.infer(seen)
    except RemoteError as error:
        return error.type, 0.0
    except PolicyUnavailable:
        return "lost", 0.0
    assert seen.state is not None
    assert (chunk.actions == seen.state).all(), "an answer of another robot"
    return "answered", 1000 * (perf_counter() - started)


def watch(endpoint: str, ended: threading.Event, seen: list[tuple[float, float]]) -> None:
    """Collect (resident bytes of the server, milliseconds that its metrics took), once a second until the end."""
    with RemotePolicy(endpoint, timeout=30.0) as remote:
        while not ended.wait(1.0):
            started = perf_counter()
            resident = remote.metrics()["resident_bytes"]
            seen.append((resident, 1000 * (perf_counter() - started)))


def measure(load: Load) -> dict[str, Any]:
    """One run; what `main` prints."""
    processes = multiprocessing.get_context("forkserver")
    endpoint_here, endpoint_there = processes.Pipe(duplex=False)
    stop_there, stop_here = processes.Pipe(duplex=False)
    server = processes.Process(target=serve, args=(load, endpoint_there, stop_there))
    server.start()
    endpoint_there.close()  # so that a server that dies is noticed
    endpoint = endpoint_here.recv()
    pipes = [processes.Pipe() for _ in range(load.clients)]
    robots = [
        processes.Process(target=drive, args=(load, number, endpoint, there)) for number, (_, there) in enumerate(pipes)
    ]
    for robot, (_, there) in zip(robots, pipes, strict=True):
        robot.start()
        there.close()
    for here, _ in pipes:
        here.recv()
    for here, _ in pipes:
        here.send(None)
    ended = threading.Event()
    samples: list[tuple[float, float]] = []
    watching = threading.Thread(target=watch, args=(endpoint, ended, samples))
    watching.start()
    clients = [here.recv() for here, _ in pipes]
    ended.set()
    watching.join()
    with RemotePolicy(endpoint, timeout=30.0) as remote:
        watchers = remote.metrics()["watchers"]
    stop_here.send(None)
    for process in (*robots, server):
        process.join()
    return {**summary(load, clients, samples), "watchers": watchers}


def summary(load: Load, clients: Sequence[Client], samples: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Figures of a run: counts, milliseconds, and megabytes (10^6 bytes)."""
    outcomes: Counter[str] = sum((Counter(client.outcomes) for client in clients), Counter())
    answered = [client.outcomes.get("answered", 0) for client in clients]
    asked = [sum(client.outcomes.values()) for client in clients]
    settled = [resident / 1e6 for resident, _ in samples[int(SETTLED) :]] or [float("nan")]
    return {
        "load": asdict(load),
        "asked": sum(asked),
        "outcomes": dict(outcomes),
        "missed_periods": sum(client.missed for client in clients),
        "answered_by_client": {"least": min(answered), "most": max(answered)},
        "round_trip_ms": percentiles([value for client in clients for value in client.round_trips]),
        "lateness_ms": percentiles([value for client in clients for value in client.lateness]),
        "metrics_ms": percentiles([milliseconds for _, milliseconds in samples]),
        "server_mb": {"first": settled[0], "most": max(settled), "last": settled[-1]},
        "client_mb": {"most": max(client.resident for client in clients) / 1e6},
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest."""
    return {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99)), "max": max(values)}


def main() -> None:
    """Print the figures of one run, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Load()).items():
        kind = str if default is None else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    for name, found in measure(Load(**vars(parser.parse_args()))).items():
        shown = (
            {key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}
            if isinstance(found, dict)
            else found
        )
        print(f"{name:>20}  {shown}")


if __name__ == "__main__":
    main()
