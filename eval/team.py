"""Who runs the episodes of an evaluation: this process, worker processes beside it, or a Ray cluster."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from eval.evaluate import VIDEOS, Entered, Evaluation, stage_of
from eval.observers import Watcher
from eval.realtime import realtime_of
from eval.results import RunFolder
from eval.rollout import Episode
from eval.settings import Settings
from eval.sources import Source, dialled, open_source, served_policy
from eval.spread import WorkerLost
from eval.worker import Player
from eval.workers import Crew, SharedServer
from eval.worlds import make_world, robot_of


class Team(Protocol):
    """Runs episodes, each once."""

    def begin(self, episode: Episode) -> Entered:
        """Make ready for a first episode, which shows what policy this is.

        Raises:
            InputError: if the policy does not fit the robot, or cannot be used.
        """
        ...

    def run(self, episodes: Sequence[Episode], folder: RunFolder, watch: Watcher) -> None:
        """Run and store episodes.

        Raises:
            InputError: if the policy does not fit the robot of a task.
        """
        ...


def open_team(settings: Settings, first: Episode) -> AbstractContextManager[Team]:
    """Start whatever `workers=` and `cluster=` ask for.

    Args:
        first: episode to begin with.

    Raises:
        InputError: if the policy, or the cluster, cannot be used.
        ServerError: if a server process of our own fails.
    """
    if settings.spread.alone:
        return _alone(settings, first)
    if settings.cluster is None:
        return open_crew(settings, first)
    from eval.cluster import open_cluster  # ray is optional

    return open_cluster(settings, first)


def begin_with_any(team: Team, episodes: Sequence[Episode], say: Callable[[str], None]) -> Entered:
    """Make ready with the first episode whose world can be built: some may kill every worker that tries.

    Args:
        episodes: of each of their worlds, the first is tried.
        say: hears of every worker that was lost.

    Raises:
        InputError: if the policy does not fit the robot, or cannot be used.
        WorkerLost: if no world can be built.
    """
    firsts: dict[tuple[str, ...], Episode] = {}
    for episode in episodes:
        firsts.setdefault(stage_of(episode), episode)
    for episode in firsts.values():
        if (entered := _begun(team, episode, say)) is not None:
            return entered
    raise WorkerLost("no episode can begin: each of these worlds cost its worker")


def _begun(team: Team, episode: Episode, say: Callable[[str], None]) -> Entered | None:
    try:
        return team.begin(episode)
    except WorkerLost as loss:
        say(f"{episode.task} episode {episode.episode_id}: {loss}")
        return None


@contextmanager
def _alone(settings: Settings, first: Episode) -> Iterator[Evaluation]:
    with open_source(settings, first.task) as source:
        importlib.import_module("envs.manipulation")  # here, because a server is starting meanwhile
        with evaluation(settings, source) as alone:
            yield alone


@contextmanager
def open_crew(settings: Settings, first: Episode) -> Iterator[Crew]:
    """Worker processes of this machine."""
    with ExitStack() as stack:
        server = None
        if settings.policy == "served":
            server = stack.enter_context(SharedServer(partial(served_policy, settings), robot_of))
            server.start(first.task)
        log = Path(settings.out) / "workers.log"
        yield stack.enter_context(Crew(partial(player, settings, first.task), settings.workers, log, server))


@contextmanager
def player(settings: Settings, task: str) -> Iterator[Player]:
    """What a worker process plays with.

    Args:
        task: to begin with.
    """
    with ExitStack() as stack:
        line = stack.enter_context(dialled(settings)) if settings.policy == "served" else None
        source = line or stack.enter_context(open_source(settings, task))
        yield Player(stack.enter_context(evaluation(settings, source)), line)


def evaluation(settings: Settings, source: Source) -> Evaluation:
    """One process's part: worlds of its own, one at a time, and a policy."""
    build = partial(
        make_world,
        overlay=settings.overlay,
        robot_assets=settings.robot_assets,
        suite_python=settings.suite_python,
    )
    videos = Path(settings.out) / VIDEOS if settings.video else None
    return Evaluation(source, build, settings.rows, videos, realtime_of(settings), settings.ensemble)
