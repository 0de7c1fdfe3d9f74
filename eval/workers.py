"""Worker processes on this machine: they simulate, and share one policy server that answers them in batches."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.dispatch import dispatch
from eval.evaluate import Entered, lost, stage_of
from eval.observers import Watcher
from eval.results import Record, RunFolder
from eval.rollout import Episode
from eval.served import ServedPolicy, ServerError
from eval.spread import WorkerLost
from eval.worker import MakePlayer, Verb, answer_of

ENVIRONMENT = {"LP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # one worker is one core's work
PATIENCE = 5.0  # [s] for a worker to end when told to
GRACE = 2.0  # [s] for a worker that hung up to end by itself, so that its own exit status is seen


class WorkerProcess:
    """One process that plays episodes; started again by the next question when it died. Used by one thread at a time.

    Args:
        make_player: called in the process; it must be importable there.
        log: file that receives what the process prints.
    """

    def __init__(self, make_player: MakePlayer, log: Path) -> None:
        self._make_player = make_player
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.stage: tuple[str, ...] = ()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Begin to load what it needs; returns at once."""
        self._connection, theirs = multiprocessing.Pipe()
        command = [sys.executable, "-m", "eval.attached", "eval.worker", str(theirs.fileno())]
        environment = {**ENVIRONMENT, **os.environ}
        with self._log.open("ab") as log, theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the parent's business
            )
        self._connection.send(self._make_player)

    def ask(self, verb: Verb, episode: Episode, address: str) -> Any:
        """Ask for a beginning or an episode; waits for the answer.

        Raises:
            InputError: if the policy cannot be opened or does not fit the robot, or the world cannot be built.
            WorkerLost: if the process died, or broke so that the next question needs a new one.
        """
        try:
            if self._process is None:
                self.start()
            self.stage = stage_of(episode)
            self._connection.send((verb, episode, address))
            outcome = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerLost(f"a worker process {self.stop(GRACE)} (see {self._log})") from None
        try:
            return answer_of(outcome)
        except WorkerLost:
            self.stop()
            raise

    def stop(self, grace: float = 0.0) -> str:
        """End the process, by force after PATIENCE; says how it ended.

        Args:
            grace: [s] to let it end by itself first.
        """
        process, self._process = self._process, None
        if process is None:
            return "was stopped"
        assert process.stdin is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        process.stdin.close()  # eval.attached ends when this closes
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self._connection.close()  # last: a thread that waits for an answer wakes when the process is gone
        return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


class SharedServer:
    """A policy server process that several threads' workers use, for one robot at a time; a context manager.

    Args:
        open_for: robot's name -> its server, not started yet.
        robot_of: task -> its robot's name.
    """

    def __init__(self, open_for: Callable[[str], ServedPolicy], robot_of: Callable[[str], str]) -> None:
        self._open_for = open_for
        self.robot_of = robot_of
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._policy: ServedPolicy | None = None
        self._robot = self._address = ""
        self._deaths: dict[str, str] = {}

    def __enter__(self) -> "SharedServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def pid(self) -> int | None:
        return self._policy.pid if self._policy else None

    def start(self, task: str) -> ServedPolicy:
        """Begin to load the policy for a task's robot, unless it is there; returns at once."""
        robot = self.robot_of(task)
        if self._policy is None or robot != self._robot:
            self._stack.close()
            self._policy, self._robot = self._stack.enter_context(self._open_for(robot)), robot
        return self._policy

    def address(self, task: str) -> str:
        """Where a task's policy answers now; starts the server, also again when it died.

        Raises:
            InputError: if it refused its arguments.
            ServerError: if it does not come up, or died too often.
        """
        with self._lock:
            policy = self.start(task)
            self._note_death()
            policy.revive()
            self._address = policy.endpoint
            return self._address

    def death(self, address: str) -> str:
        """How the server that was at an address died; "" if it lives."""
        with self._lock:
            self._note_death()
            return self._deaths.get(address, "")

    def _note_death(self) -> None:
        if self._policy is not None and (death := self._policy.death):
            self._deaths.setdefault(self._address, death)


class Crew:
    """Workers of this machine and the policy server they share, if they do; a context manager.

    Args:
        make_player: what each worker plays with.
        workers: number of processes.
        log: file that receives what they print.
        server: their policy server; None if each has a policy of its own.
    """

    def __init__(self, make_player: MakePlayer, workers: int, log: Path, server: SharedServer | None = None) -> None:
        self._all = [WorkerProcess(make_player, log) for _ in range(workers)]
        self._server = server
        self._idle = list(self._all)
        self._lock = threading.Lock()
        self._free = threading.Semaphore(workers)

    def __enter__(self) -> "Crew":
        for worker in self._all:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._all:
            worker.stop()

    @property
    def pids(self) -> list[int]:
        """Of the worker processes that were started."""
        return [worker.pid for worker in self._all if worker.pid is not None]

    def begin(self, episode: Episode) -> Entered:
        """Make ready for a first episode, which shows what policy this is.

        Raises:
            InputError: if the policy does not fit the robot, or cannot be used.
            ServerError: if the policy server does not come up.
            WorkerLost: if a worker does not come up.
        """
        with self._worker_for(episode) as worker:
            return worker.ask("begin", episode, self._server.address(episode.task) if self._server else "")

    def attempt(self, episode: Episode) -> Record:
        """See `eval.dispatch.Slot`; safe in threads, for one robot at a time."""
        with self._worker_for(episode) as worker:
            try:
                address = self._server.address(episode.task) if self._server else ""
            except ServerError as error:
                return lost(episode, f"ServerError: {error}")
            record: Record = worker.ask("attempt", episode, address)
        death = self._server.death(address) if self._server and not record.scored else ""
        return replace(record, outcome="error", error=f"ServerError: {death}") if death else record

    def renew(self) -> bool:
        """See `eval.dispatch.Slot`: a question starts a lost worker again."""
        return True

    def run(self, episodes: Sequence[Episode], folder: RunFolder, watch: Watcher) -> None:
        """Run and store episodes, one robot after the other: each has its own policy.

        Raises:
            InputError: if the policy does not fit the robot of a task.
        """

        def store(record: Record) -> None:
            folder.add(record)
            watch(record)

        for group in by_robot(episodes, self._server.robot_of if self._server else lambda task: ""):
            dispatch([self] * len(self._all), group, store)

    @contextmanager
    def _worker_for(self, episode: Episode) -> Iterator[WorkerProcess]:
        """A worker that nobody uses, best one that holds the episode's world."""
        with self._free:
            with self._lock:
                worker = max(self._idle, key=lambda each: each.stage == stage_of(episode))
                self._idle.remove(worker)
            try:
                yield worker
            finally:
                self._idle.append(worker)


def by_robot(episodes: Sequence[Episode], robot_of: Callable[[str], str]) -> list[list[Episode]]:
    """Episodes in the order given, those of each robot together."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(robot_of(episode.task), []).append(episode)
    return list(groups.values())
