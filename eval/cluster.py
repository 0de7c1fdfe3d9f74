"""An evaluation on a Ray cluster: groups of workers on its machines, each with a policy of its own, one result folder.

Nothing of the results lives in the cluster: each record, and each video, travels to the machine that asked, which
alone writes them. A machine that is lost gives its running episodes back.
"""

import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from eval.dispatch import dispatch
from eval.evaluate import Entered
from eval.observers import Watcher
from eval.results import Record, RunFolder
from eval.rollout import Episode
from eval.settings import Settings
from eval.spread import RAY, WorkerLost
from eval.team import open_crew
from eval.worker import Verb, answer_of, outcome
from eval.workers import Crew, by_robot
from eval.worlds import robot_of
from vla.api import InputError

INSTALL = "pip install 'cadence-vla[cluster]'"
ANSWERS = 5.0  # [s] within which the address of a cluster must accept a connection
LOOK = 1.0  # [s] between two looks at whether somebody still waits
PATIENCE = 600.0  # [s] for a lost group's place in the cluster
RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU"}  # what an actor asks for -> what a machine says it has
FORWARDED = ("MUJOCO_GL", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE")  # variables that groups of workers inherit


class Group:
    """Workers on one machine of the cluster and the policy they share; a Ray actor whose methods run in threads.

    Args:
        settings: of the evaluation.
        environment: variables to set unless the machine sets them.
    """

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        self._folder = Path(tempfile.mkdtemp(prefix="cadence-"))
        self._settings = replace(settings, out=str(self._folder), cluster=None, replicas=None)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._crew: Crew | None = None

    def ready(self) -> None:
        """Ends when this actor is there; `__ray_ready__` does not exist through `ray://`."""

    def begin(self, episode: Episode) -> tuple[str, Any]:
        """The outcome of making ready for a first episode."""
        return outcome(lambda: self._at_work(episode).begin(episode))

    def attempt(self, episode: Episode) -> tuple[str, Any]:
        """The outcome of one episode: its record and its video, b"" if there is none."""
        return outcome(lambda: self._filmed(self._at_work(episode).attempt(episode)))

    def close(self) -> None:
        """Stop the workers and their server."""
        self._stack.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _at_work(self, first: Episode) -> Crew:
        with self._lock:
            if self._crew is None:
                self._crew = self._stack.enter_context(open_crew(self._settings, first))
            return self._crew

    def _filmed(self, record: Record) -> tuple[Record, bytes]:
        video = self._folder / record.video
        if not record.video or not video.is_file():
            return record, b""
        content = video.read_bytes()
        video.unlink()
        return record, content


class Place:
    """Where one group of the cluster works; it gets another machine when its own is lost. Safe in threads.

    Args:
        hire: starts a group somewhere, now or when there is room.
        closing: set when nobody waits any more.
    """

    def __init__(self, hire: Callable[[], Any], closing: threading.Event) -> None:
        self._hire = hire
        self._closing = closing
        self._lock = threading.Lock()
        self._get_group()
        self._up = False
        self._deadline: float | None = None

    def begin(self, episode: Episode) -> Entered:
        """See `eval.team.Team`."""
        if not self.renew():
            raise WorkerLost(f"the cluster had no room for a group of workers within {PATIENCE:.0f} s")
        return self._ask("begin", episode)

    def attempt(self, episode: Episode) -> tuple[Record, bytes]:
        """The record of an episode, and its video.

        Raises:
            WorkerLost: if the machine, or the worker there, is gone.
        """
        return self._ask("attempt", episode)

    def renew(self) -> bool:
        """Wait until the group, or after a loss another one, is up; False if none is PATIENCE after the first asked."""
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + PATIENCE  # one for all workers that wait for this group
            while not (self._up or self._closing.is_set() or self._look()):
                if time.monotonic() >= self._deadline:
                    return False
            return self._up

    def close(self) -> None:
        """End the group, which gets a moment to clean up after itself."""
        with suppress(_ray().exceptions.RayError):
            _ray().get(self._group.close.remote(), timeout=ANSWERS)
        _ray().kill(self._group)

    def _get_group(self) -> None:
        self._group, self._lost = self._hire(), False
        self._ready = self._group.ready.remote()

    def _look(self) -> bool:
        """Wait a moment for the group to come up; one that failed to is lost, and the next look is for another."""
        if self._lost:
            self._get_group()
        try:
            with suppress(_ray().exceptions.GetTimeoutError):  # it waits for room
                _ray().get(self._ready, timeout=LOOK)
                self._up = True
        except _ray().exceptions.RayError:
            self._lost = True
            self._closing.wait(LOOK)
        return self._up

    def _ask(self, verb: Verb, episode: Episode) -> Any:
        group = self._group
        try:
            answer = _ray().get(getattr(group, verb).remote(episode))
        except _ray().exceptions.RayError as error:
            with self._lock:
                if group is self._group:  # else another thread has noticed before, and renewed it
                    self._lost, self._up, self._deadline = True, False, None
            raise WorkerLost(f"a group of workers in the cluster was lost: {str(error).splitlines()[0]}") from None
        return answer_of(answer)


class Fleet:
    """All groups of workers of an evaluation in a cluster.

    Args:
        hire: starts a group somewhere, now or when there is room.
        groups: how many there are to be.
        workers: episodes that one group runs at once.
    """

    def __init__(self, hire: Callable[[], Any], groups: int, workers: int) -> None:
        self._closing = threading.Event()
        self._places = [Place(hire, self._closing) for _ in range(groups)]
        self._workers = workers
        self._identity: dict[str, str] = {}

    def begin(self, episode: Episode) -> Entered:
        """See `eval.team.Team`."""
        entered = self._places[0].begin(episode)
        self._identity = entered.identity
        return entered

    def run(self, episodes: Sequence[Episode], folder: RunFolder, watch: Watcher) -> None:
        """See `eval.team.Team`."""
        slots = [slot for slot in (_Slot(place, folder.path) for place in self._places) for _ in range(self._workers)]

        def store(record: Record) -> None:
            self._check(record)
            folder.add(record)
            watch(record)

        for group in by_robot(episodes, robot_of):
            dispatch(slots, group, store)

    def close(self) -> None:
        """End every group."""
        self._closing.set()
        for place in self._places:
            place.close()

    def _check(self, record: Record) -> None:
        """Refuse the record of a machine that has another checkpoint where the first has its own."""
        got = {"model": record.policy, "recipe": record.recipe, "checkpoint": record.checkpoint}
        if record.scored and self._identity and got != self._identity:
            raise InputError(f"the machines of the cluster have different policies: {got} and {self._identity}")


class _Slot:
    """A place as `eval.dispatch` uses it; its workers share it, so what one of them lost goes to another machine."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._place = place
        self._folder = folder
        self.renew = place.renew

    def attempt(self, episode: Episode) -> Record:
        record, video = self._place.attempt(episode)
        if video:
            path = self._folder / record.video
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(video)
        return record


@contextmanager
def open_cluster(settings: Settings, first: Episode) -> Iterator[Fleet]:
    """Hire groups of workers in the cluster that `cluster=` names; they end with this context.

    Raises:
        InputError: if ray is not installed, the cluster does not answer, or no machine of it has room for a group.
    """
    ray = _ray()
    _connect(cast(str, settings.cluster))  # there is none without: see `open_team`
    try:
        needs = {"num_cpus": settings.workers, "num_gpus": int(settings.has_model and settings.device == "cuda")}
        if not (room := _room(needs)):
            asked = f"{needs['num_cpus']} CPUs and {needs['num_gpus']} GPUs for workers={settings.workers}"
            raise InputError(f"no machine of cluster={settings.cluster} has {asked}")
        forwarded = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        actor = ray.remote(**needs, max_concurrency=settings.workers + 1)(Group)
        fleet = Fleet(partial(actor.remote, settings, forwarded), settings.replicas or room, settings.workers)
        try:
            yield fleet
        finally:
            fleet.close()
    finally:
        ray.shutdown()


def _connect(cluster: str) -> None:
    if cluster != RAY:
        _knock(cluster)
    to = {"address": "auto" if cluster == RAY else cluster, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with suppress(ConnectionAbortedError):  # the process that Ray's client server forks may die at birth
            return _ray().init(**to)
        _ray().init(**to)
    except Exception as error:  # which one depends on how far it got
        hint = "start one with: ray start --head, or name its address: cluster=ray://host:10001"
        raise InputError(f"cluster={cluster} cannot be used: {str(error).splitlines()[0]}; {hint}") from error


def _knock(cluster: str) -> None:
    """Refuse an address where no Ray answers: Ray itself would wait for minutes."""
    import grpc  # comes with ray

    host, port = cluster.removeprefix("ray://").rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), ANSWERS).close()  # a closed port says so at once
        if not os.environ.get("RAY_USE_TLS"):
            with grpc.insecure_channel(f"{host}:{port}") as channel:
                grpc.channel_ready_future(channel).result(timeout=ANSWERS)
    except (OSError, OverflowError) as error:
        raise InputError(f"cluster={cluster} does not answer: {error}; start it with: ray start --head") from None
    except grpc.FutureTimeoutError:
        raise InputError(f"cluster={cluster} does not answer: no Ray is there within {ANSWERS:.0f} s") from None


def _room(needs: dict[str, int]) -> int:
    """How many groups fit into the machines of the cluster."""
    needed = [(RESOURCES[name], count) for name, count in needs.items() if count]
    machines = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
    return sum(min(int(has.get(name, 0)) // count for name, count in needed) for has in machines)


def _ray() -> Any:
    """The library.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import grpc  # noqa: F401 - of ray[client]
        import ray
    except ImportError:
        raise InputError(f"a cluster needs ray: {INSTALL}") from None
    return ray
