"""One episode in which simulated time goes on while the policy thinks, driven by the robot's own control loop.

The policy is asked at once and its answer handed over after its latency in simulated time, so nothing sleeps and an
injected latency gives the same episode on any machine. Three ways to wait, all of `policy_server.control_loop`:

    wait                 the robot holds until the answer comes, and acts on it at once
    asynchronous         it goes on with the last chunk, and with the newest one's row for its step when that comes
    real_time_chunking   the same, and the new chunk continues what will have been executed (arXiv 2506.07339)

With `wait` and no latency an episode is that of `eval.rollout.rollout`, bit for bit.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.latency import Latency, read_latency
from eval.rollout import ROUND_TRIP, Environment, Episode, Rollout, ask, observe
from eval.settings import LOOPS, Settings
from policy_server.asking import Answer
from policy_server.control_loop import ControlLoop
from policy_server.robot import Limits, Sensed
from vla.api import InputError, Observation, Policy, Quantity
from vla.averaging import Averaging
from vla.chunking import AdaptiveEnsemble, Chunking, OpenLoop, RealTimeChunking

WAIT, ASYNCHRONOUS, REAL_TIME_CHUNKING = LOOPS
SIMULATED = "simulated"  # the stage whose milliseconds passed in the simulation
_ROUNDING = 1e-9  # [s]


@dataclass(frozen=True)
class Realtime:
    """How a robot lives with a policy that takes time.

    Attributes:
        loop: one of `LOOPS`.
        latency: of each answer, in simulated time.
        ensemble: chunks that an asynchronous loop averages.
    """

    loop: str
    latency: Latency
    ensemble: int = 1

    def rollout(
        self,
        environment: Environment,
        policy: Policy,
        episode: Episode,
        execute: int,
        observers: Sequence[Callable[[Observation], None]] = (),
        into: Rollout | None = None,
    ) -> Rollout:
        """Run one episode to its time limit, which waiting counts towards.

        Args:
            environment: see `eval.rollout.Environment`, with `control_period` [s] and `hold_action`. One that has
                `wait(seconds)` is waited for exactly; else the robot holds for whole control periods.
            policy: any policy; told to forget the session first.
            episode: start, seed and session.
            execute: actions taken from each chunk; for real_time_chunking steps between two questions, more while
                an answer takes longer; asynchronous ignores it, and asks again as soon as it was answered.
            observers: called with what is seen once in every control period.
            into: filled step by step, so that a caller keeps what was measured before an exception.

        Returns:
            Successes after each control period of simulated time; latencies of each answer, measured and simulated.

        Raises:
            InputError: if an answer cannot be used.
        """
        seen = Rollout() if into is None else into
        robot = _Robot(environment, episode, observers, seen, self.loop == WAIT)
        asker = _Asker(policy, robot, self.latency, seen)
        robot.due = lambda: asker.due
        loop = ControlLoop(
            robot,
            policy,
            chunking_of(self.loop, execute, self.ensemble, policy.spec.actions),
            max_age=math.inf,
            stop_after=math.inf,
            clock=robot,
            asker=asker,
        )
        with _quiet_control_loop():
            loop.begin(seen.instruction, episode.session)
            while not robot.truncated:
                loop.tick()
                if loop.report.interventions["unusable_answer"]:
                    raise InputError(
                        "the control loop refused an answer: its shape, its rows, or a value is not finite"
                    )
        return seen


def realtime_of(settings: Settings) -> Realtime | None:
    """What a run's settings ask for; None: simulated time stands still while the policy thinks.

    Raises:
        InputError: if the file that `latency_ms` names cannot be used.
    """
    if not settings.realtime:
        return None
    return Realtime(settings.loop, read_latency(settings.latency_ms), settings.ensemble or 1)


def chunking_of(loop: str, execute: int, ensemble: int = 1, actions: Sequence[Quantity] = ()) -> Chunking:
    """How a loop turns chunks into actions; a new one for every episode."""
    if loop == WAIT:
        return OpenLoop(execute)
    if loop == ASYNCHRONOUS:
        return AdaptiveEnsemble(ensemble, averaging=Averaging.of(actions))
    return RealTimeChunking(execute)


@contextmanager
def _quiet_control_loop() -> Iterator[None]:
    """That the robot has to hold is what is measured here, no news: only errors are logged meanwhile."""
    log = logging.getLogger("policy_server.control_loop")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


class _Robot:
    """A robot and its clock, both simulated by an environment."""

    def __init__(
        self,
        environment: Environment,
        episode: Episode,
        observers: Sequence[Callable[[Observation], None]],
        seen: Rollout,
        waits: bool,
    ) -> None:
        self._environment = environment
        self._world: Any = getattr(environment, "unwrapped", environment)
        self._session, self._observers, self._seen, self._waits = episode.session, observers, seen, waits
        self.period: float = self._world.control_period
        self.limits = Limits.none([True] * len(self._world.action_names))
        self.due: Callable[[], float] = lambda: 0.0
        self.truncated = False
        self._time = 0.0
        raw, info = environment.reset(seed=episode.seed, options=episode.options)
        seen.instruction = info["instruction"]
        self._see(raw, info)

    @property
    def instruction(self) -> str:
        """What the robot is told now."""
        return self._info["instruction"]

    def now(self) -> float:
        """[s] of simulated time in this episode."""
        return self._time

    def wait_until(self, time: float) -> None:
        """Only commands let time pass here."""

    def observe(self) -> Sensed:
        return Sensed(self._raw["images"], self._raw["state"])

    def position(self) -> NDArray[np.floating]:
        return np.full(len(self.limits.relative), np.nan)

    def apply(self, action: NDArray[np.float32]) -> None:
        raw, _, _, truncated, info = self._environment.step(action)
        self._after(raw, info, truncated, getattr(self._world, "simulated_time", self._time + self.period))

    def hold(self) -> None:
        """Stay for a period, or until the answer comes if that is all the robot waits for."""
        world, remaining = self._world, self.due() - self._time
        if not hasattr(world, "wait"):
            self.apply(world.hold_action)
            return
        partly = self._waits and remaining < self.period
        raw, _, _, truncated, info = world.wait(max(remaining, _ROUNDING) if partly else self.period)
        self._after(raw, info, truncated, world.simulated_time)

    def stop(self) -> None:
        """The episode ends."""

    def _after(self, raw: Any, info: Any, truncated: bool, time: float) -> None:
        self._time, self.truncated = time, truncated
        if math.floor(time / self.period + 1e-6) > self._seen.steps:  # a control period of simulated time is full
            self._seen.success.append(bool(info["success"]))
            self._seen.strict.append(bool(info["success_strict"]))
            self._see(raw, info)
        self._raw, self._info = raw, info

    def _see(self, raw: Any, info: Any) -> None:
        self._raw, self._info = raw, info
        for observer in self._observers:
            observer(observe(raw, info["instruction"], self._session, self._seen.steps))


class _Asker:
    """Asks at once and hands the answer over when its latency has passed in simulated time."""

    def __init__(self, policy: Policy, robot: _Robot, latency: Latency, seen: Rollout) -> None:
        self._policy, self._robot, self._latency, self._latency_ms = policy, robot, latency, seen.latency_ms
        self._answer: Answer | None = None
        self._questions = 0
        self.due = 0.0

    @property
    def busy(self) -> bool:
        return self._answer is not None

    def ask(self, observation: Observation, reset: bool) -> None:
        """Raises what the policy raises, because it ends the episode."""
        if reset:
            self._policy.reset(observation.session)
        told = replace(observation, instruction=self._robot.instruction)
        chunk = ask(self._policy, told, self._latency_ms)
        measured = self._latency_ms[ROUND_TRIP][-1]
        milliseconds = self._latency.of(observation.session, self._questions, measured)
        self._latency_ms[SIMULATED].append(milliseconds)
        self._questions += 1
        self.due = self._robot.now() + milliseconds / 1000
        self._answer = Answer(observation, chunk=chunk)

    def take(self) -> Answer | None:
        if self._answer is None or self._robot.now() < self.due - _ROUNDING:
            return None
        answer, self._answer = self._answer, None
        return answer

    def close(self) -> None:
        """Nothing runs."""
