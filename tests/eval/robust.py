"""A small evaluation that is killed: a run of toy episodes by two workers and a server, which die when the plan says.

`python -m tests.eval.robust <folder> <plan>`; the plan is a JSON list of [victim, seconds]. After every second
episode that ends, so many seconds pass, then the next victim dies; who died is kept in the folder, because this process
is among the victims.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from eval.evaluate import Evaluation, pending
from eval.results import Record, RunFolder
from eval.rollout import Episode
from eval.served import ServedPolicy
from eval.sources import Dialled
from eval.worker import Player
from eval.workers import Crew, SharedServer
from policy_server.client import RemotePolicy
from tests.eval.toy import ToyWorld
from vla.api import Camera

EPISODES = [Episode("toy", number, starts="random") for number in range(60)]
WORK = 120  # size of a matrix: an episode is to last some milliseconds
VICTIMS = ("evaluator", "worker", "server")
TIMEOUT = 0.5  # [s] until a worker notices that its server died


class SlowWorld(ToyWorld):
    """A toy world whose steps take as long as small physics."""

    def step(self, action):
        matrix = np.full((WORK, WORK), 1.0 / WORK)
        for _ in range(20):
            matrix = matrix @ matrix
        return super().step(action)


def make_world(episode: Episode, cameras: Iterable[Camera], film: bool) -> SlowWorld:
    return SlowWorld()


@contextmanager
def player() -> Iterator[Player]:
    with Dialled(partial(RemotePolicy, timeout=TIMEOUT)) as line, Evaluation(line, make_world, execute=1) as evaluation:
        yield Player(evaluation, line)


class Killer:
    """Kills what the plan says, with signal 9, a moment after every second episode that ends."""

    def __init__(self, folder: Path, plan: list[tuple[str, float]], crew: Crew, server: SharedServer) -> None:
        self._folder = folder
        self._plan = plan[len(done(folder)) :]
        self._crew, self._server = crew, server
        self._seen = 0
        self._timers: list[threading.Timer] = []

    def __call__(self, record: Record) -> None:
        self._seen += 1
        if self._seen % 2 == 0 and self._plan:
            victim, seconds = self._plan.pop(0)
            self._timers.append(threading.Timer(seconds, self._kill, [victim]))
            self._timers[-1].start()

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _kill(self, victim: str) -> None:
        pids = {"evaluator": [os.getpid()], "worker": self._crew.pids, "server": [self._server.pid]}
        pid = next(iter(pids[victim]), None)
        if pid is not None:
            with (self._folder / "kills").open("a") as file:
                file.write(victim + "\n")
            os.kill(pid, signal.SIGKILL)


def done(folder: Path) -> list[str]:
    """Who was killed so far."""
    kills = folder / "kills"
    return kills.read_text().splitlines() if kills.exists() else []


def main(out: Path, plan: list[tuple[str, float]]) -> int:
    """Run what is missing; 0 if every episode was scored."""
    with RunFolder(out) as folder:
        arguments = {"log": out / "server.log", "timeout": TIMEOUT, "restarts": len(plan), "module": "tests.eval.toy"}
        with (
            SharedServer(lambda robot: ServedPolicy([], **arguments), lambda task: "toy") as server,
            Crew(player, 2, out / "workers.log", server) as crew,
        ):
            killer = Killer(out, plan, crew, server)
            crew.run(pending(EPISODES, folder.records), folder, killer)
            killer.stop()
        return 1 if pending(EPISODES, folder.records) else 0


if __name__ == "__main__":
    from tests.eval import robust  # not as __main__: workers import its player by name

    sys.exit(robust.main(Path(sys.argv[1]), json.loads(sys.argv[2])))
