"""Many episodes, one after another: each is stored as it ends, and what goes wrong in one is recorded, not scored."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from eval.observers import Video, Watcher
from eval.policies import quantities
from eval.realtime import Realtime
from eval.results import Key, Record, RunFolder
from eval.rollout import Episode, Rollout, check_fit, rollout
from eval.sources import Source
from eval.summary import latency
from policy_server.client import RemoteError
from vla.api import Camera, PolicySpec
from vla.averaging import Averaging
from vla.chunking import AdaptiveEnsemble, Chunking, OpenLoop

EXPIRED = "expired"  # the server's word for an observation that waited longer than the robot does
VIDEOS = "videos"  # within the run's folder

TRIES = 3  # how often an episode may lose its worker before it counts as broken
MakeWorld = Callable[[Episode, Sequence[Camera], bool], Any]  # its world, for cameras the policy reads; film it


class Entered(NamedTuple):
    """What is known once the first world and the policy are there.

    Attributes:
        identity: what makes two policies of one kind different.
        renderer: what draws the images.
    """

    identity: dict[str, str]
    renderer: str


@dataclass
class Evaluation:
    """Runs episodes of any tasks with one policy; a context manager that closes the environment it holds.

    Args:
        source: gives the policy.
        make_world: builds the environment of an episode's task and variant.
        execute: actions taken from each chunk.
        videos: folder for videos, or None.
        realtime: how simulated time goes on while the policy thinks; None: it stands still.
        ensemble: chunks that are averaged, the policy being asked at every step; None: actions are taken from one.

    Attributes:
        renderer: what drew the images of the newest environment.
    """

    source: Source
    make_world: MakeWorld
    execute: int
    videos: Path | None = None
    realtime: Realtime | None = None
    ensemble: int | None = None
    renderer: str = ""
    _stage: tuple[str, ...] = ()
    _world: Any = field(default=None, repr=False)

    def __enter__(self) -> "Evaluation":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, episode: Episode) -> Entered:
        """Make ready for a first episode, which shows what policy this is.

        Raises:
            InputError: if the policy does not fit the robot.
        """
        self.enter(episode)
        return Entered(identity(self.source), self.renderer)

    def run(self, episodes: Iterable[Episode], folder: RunFolder, watch: Watcher) -> None:
        """Run and store episodes.

        Raises:
            InputError: if the policy does not fit the robot of a task; nothing of that task is run.
        """
        for episode in episodes:
            if not self.is_at(episode):  # outside the episode: what is wrong with a whole task is the user's
                self.enter(episode)
            record = self.attempt(episode)
            folder.add(record)
            watch(record)

    def attempt(self, episode: Episode) -> Record:
        """Run one episode; whatever goes wrong inside it becomes its record."""
        began, period = time.perf_counter(), 0.0
        seen, spec, outcome, error, video = Rollout(), self.source.spec, "finished", "", None
        try:
            world = self._world if self._world is not None else self.enter(episode)
            spec = self.source.spec
            period = world.unwrapped.control_period
            policy = self.source.policy(world.unwrapped)
            spec = policy.spec
            video = Video(self.videos, episode, period) if self.videos else None
            films = [video] if video else []
            if self.realtime is None:
                rollout(world, policy, episode, self._chunking(spec), films, into=seen)
            else:
                self.realtime.rollout(world, policy, episode, self.execute, films, into=seen)
        except Exception as problem:  # an episode that broke is neither a success nor a failure: say what happened
            outcome, error = _went_wrong(problem)
            self._close()  # its state cannot be trusted
        seconds = (seen.steps * period, time.perf_counter() - began)
        record = _record(episode, seen, outcome, error, spec, seconds)
        return record if video is None else _filmed(record, video)

    def _chunking(self, spec: PolicySpec) -> Chunking:
        """How a policy's chunks become actions; a new one for every episode."""
        if self.ensemble is None:
            return OpenLoop(self.execute)
        return AdaptiveEnsemble(self.ensemble, averaging=Averaging.of(spec.actions))

    def enter(self, episode: Episode) -> Any:
        """Build the environment of an episode, closing the one before.

        Raises:
            InputError: if the policy does not fit the robot.
        """
        self._close()
        spec = self.source.for_task(episode.task)
        self._world = self.make_world(episode, spec.cameras if spec else (), self.videos is not None)
        self._stage = stage_of(episode)
        world = self._world.unwrapped
        self.renderer = world.renderer_name
        if spec is not None:
            check_fit(
                spec,
                quantities(world.state_names, world.state_units),
                quantities(world.action_names, world.action_units),
                world.control_period,
                self.execute,
            )
        return self._world

    def is_at(self, episode: Episode) -> bool:
        """Whether the environment at hand, or the one that broke last, is that of an episode."""
        return stage_of(episode) == self._stage

    def _close(self) -> None:
        if self._world is not None:
            self._world.close()
            self._world = None


def stage_of(episode: Episode) -> tuple[str, ...]:
    """What episodes that share an environment have in common."""
    return episode.task, episode.setting, episode.variant, episode.scene


def identity(source: Source) -> dict[str, str]:
    """What makes two policies of one kind different."""
    spec = source.spec
    return {} if spec is None else {"model": spec.model, "recipe": spec.recipe, "checkpoint": spec.checkpoint}


def pending(episodes: Iterable[Episode], done: Mapping[Key, Record]) -> list[Episode]:
    """Episodes without a scored record: those never run, and those that broke."""
    return [episode for episode in episodes if not (key_of(episode) in done and done[key_of(episode)].scored)]


def key_of(episode: Episode) -> Key:
    return Key(episode.task, episode.setting, episode.variant, episode.episode_id)


def lost(episode: Episode, why: str) -> Record:
    """The record of an episode whose worker was lost again and again."""
    return _record(episode, Rollout(), "error", why, None, (0.0, 0.0))


def _went_wrong(problem: Exception) -> tuple[str, str]:
    """Outcome and error of an episode that `problem` ended."""
    late = isinstance(problem, TimeoutError) or (isinstance(problem, RemoteError) and problem.type == EXPIRED)
    return "timeout" if late else "error", f"{type(problem).__name__}: {problem}"


def _filmed(record: Record, video: Video) -> Record:
    """The record with its video; an episode whose video cannot be written is an error like any other in it."""
    try:
        name = video.finish(record)
    except Exception as problem:  # the disk is full, for example
        if not record.scored:
            return record  # what broke first says more
        outcome, error = _went_wrong(problem)
        unknown: dict[str, Any] = dict.fromkeys(("success_last_step", "success_any_step", "success_strict"))
        return replace(record, outcome=outcome, error=error, **unknown)
    return replace(record, video=f"{VIDEOS}/{name}" if name else "")


def _record(
    episode: Episode, seen: Rollout, outcome: str, error: str, spec: PolicySpec | None, seconds: tuple[float, float]
) -> Record:
    scored = outcome == "finished"
    return Record(
        **key_of(episode)._asdict(),
        seed=episode.seed,
        instruction=seen.instruction,
        success_last_step=seen.success[-1] if scored else None,
        success_any_step=any(seen.success) if scored else None,
        success_strict=seen.strict[-1] if scored else None,
        steps=seen.steps,
        outcome=outcome,
        error=error,
        sim_seconds=round(seconds[0], 6),
        wall_seconds=round(seconds[1], 3),
        latency_ms=_with_samples(seen.latency_ms),
        policy=spec.model if spec else "",
        recipe=spec.recipe if spec else "",
        checkpoint=spec.checkpoint if spec else "",
    )


def _with_samples(latency_ms: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Percentiles, and the samples themselves, so that percentiles of many episodes can be computed later."""
    rounded = {stage: [round(value, 3) for value in values] for stage, values in latency_ms.items()}
    summary = latency(rounded)
    stages = {stage: {**values, "samples": rounded[stage]} for stage, values in summary["stages"].items()}
    return {**summary, "stages": stages}
