"""The robot-side loop: a command in every period, whatever the policy does (numpy and pyzmq only).

A thread of its own asks the policy; the loop never waits for it. Each tick takes the answer if there is one, asks again
when the chunking says so, and commands the action of this step within the robot's limits, or the robot's own hold.
"""

import logging
import math
from dataclasses import replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from policy_server.asking import Answer, Asker, Background
from policy_server.interventions import Interventions
from policy_server.pace import Clock, MonotonicClock, paced
from policy_server.report import Report
from policy_server.robot import Robot
from vla.api import ActionChunk, InputError, Observation, Policy
from vla.chunking import Chunking, RealTimeChunking

log = logging.getLogger(__name__)

FIRST_RETRY, LONGEST_RETRY = 0.05, 1.0  # [s] between questions while the policy fails; doubles from one to the other
LONG_HOLD = 1.0  # [s] after which holding is worth a line in the log


class Command(Enum):
    """What the robot was told in one period."""

    ACTION = "action"
    HOLD = "hold"
    STOP = "stop"


class ControlLoop:
    """Drives a robot with a policy. Close it, or use it as a context manager, before the policy is closed.

    `run` keeps the pace itself; who has a timer (a ROS node, a real-time executor) calls `begin` and then `tick` in
    every period. If anything but the policy fails, a driver for instance, the robot is stopped and the error raised.
    A robot that was stopped, for whatever reason, stays so: until the next `begin` every tick stops it again.

    Args:
        robot: what is driven.
        policy: any policy, usually a `RemotePolicy`; until `close`, only the loop's thread may use it.
        chunking: how chunks become actions: `OpenLoop` holds while it waits for the next chunk; `AdaptiveEnsemble` and
            `RealTimeChunking` go on meanwhile. It counts the robot's periods. A policy with a longer period than the
            robot has its chunks made finer: changes are divided, positions repeated.
        max_age: [s] that an observation may be old when an action that came of it is executed; None: two chunks long.
        stop_after: [s] of holding after which the robot is stopped and the episode ends.
        clock: time.
        asker: asks the policy; None: `Background(policy)`.

    Raises:
        InputError: if robot, policy and chunking do not fit each other, or on a time that is not positive.
    """

    def __init__(
        self,
        robot: Robot,
        policy: Policy,
        chunking: Chunking,
        *,
        max_age: float | None = None,
        stop_after: float = 5.0,
        clock: Clock | None = None,
        asker: Asker | None = None,
    ) -> None:
        spec = policy.spec
        self.max_age = 2 * spec.horizon * spec.period if max_age is None else max_age
        if not self.max_age > 0 or not stop_after > 0:
            raise InputError(f"max_age and stop_after must be positive, got {self.max_age} and {stop_after}")
        if len(spec.actions) != len(robot.limits.relative):
            names = [action.name for action in spec.actions]
            raise InputError(f"the policy gives actions {names}, the robot's limits have {len(robot.limits.relative)}")
        self._finer = _ratio(spec.period, robot.period)
        chunking.check(spec.horizon * self._finer)
        self._inpaints = spec.inpaints and self._finer == 1
        self._width = len(spec.actions)
        self._robot, self._chunking, self.stop_after = robot, chunking, stop_after
        self._clock: Clock = clock or MonotonicClock()
        self._stopping = False  # True from the wish to stop until the robot was told; no lock: a signal may set it
        self.report = Report(stopped=True)  # before the first episode as after one that was stopped
        self._asker: Asker = asker or Background(policy)

    def __enter__(self) -> "ControlLoop":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread that asks the policy; waits for the running answer, within the asker's patience."""
        self._asker.close()

    def stop(self) -> None:
        """Stop the robot at the next tick, which ends the episode; safe in signal handlers and from other threads.

        It is never lost: before an episode begins, it ends that one at its first tick.
        """
        self._stopping = True

    def run(self, instruction: str, session: str, ticks: int | None = None) -> Report:
        """Drive one episode at the robot's rate.

        Args:
            instruction: what to do, in words.
            session: one robot, one episode.
            ticks: periods to run; None runs until the robot is stopped.

        Returns:
            what happened. The robot was left holding, or stopped if `report.stopped`.
        """
        self.begin(instruction, session)
        try:
            for _ in paced(self._clock, self._robot.period, ticks, self.report.lateness.append, self._lost):
                if self.tick() is Command.STOP:
                    return self.report
            if self._must_stop:  # since the last tick
                self._stop()
            else:
                self._robot.hold()
            return self.report
        except BaseException as error:  # also Ctrl-C between two ticks
            self._stop(repr(error))
            raise
        finally:
            log.info("session %a ended: %s", session, self.report)

    def begin(self, instruction: str, session: str) -> None:
        """Start an episode; answers to earlier questions, and an earlier stop that was obeyed, no longer count."""
        self._instruction, self._session = instruction, session
        self._chunking.reset()
        self._interventions = Interventions()
        self.report = Report(interventions=self._interventions.counts)
        self._step = 0
        self._pending: Observation | None = None
        self._asked_tick = 0
        self._fresh = True  # until the policy has answered, every question resets the session first
        self._seen = self._held_since = self._clock.now()
        self._retry, self._next_question = 0.0, -math.inf
        self._last: NDArray[np.float32] | None = None

    def tick(self) -> Command:
        """Command the robot once; call it in every period after `begin`. After STOP it answers nothing else.

        Raises:
            Exception: what the robot raised, after it was told to stop.
        """
        try:
            return self._tick(self._clock.now())
        except BaseException as error:
            self._stop(repr(error))
            raise

    def _tick(self, now: float) -> Command:
        self.report.ticks += 1
        if self._must_stop:
            return self._stop()
        self._take(now)
        self._ask(now)
        self._take(now)  # an answer may be there at once
        action = self._action(now)
        if self._must_stop:  # since this tick began
            return self._stop()
        if action is None:
            return self._without_action(now)
        self._robot.apply(action)
        self._step += 1
        self._held_since = math.inf
        self.report.actions += 1
        return Command.ACTION

    def _ask(self, now: float) -> None:
        if self._asker.busy or now < self._next_question or not self._chunking.needs_chunk(self._step):
            return
        sensed = self._robot.observe()
        observation = Observation(
            sensed.images, self._instruction, sensed.state, session=self._session, step=self._step, time=now
        )
        if isinstance(self._chunking, RealTimeChunking):
            committed = self._chunking.committed(self._step, self._inpaints)
            if committed is not None:
                observation = replace(observation, committed=committed.actions, frozen=committed.frozen)
        self._pending, self._asked_tick = observation, self.report.ticks
        self._asker.ask(observation, self._fresh)

    def _take(self, now: float) -> None:
        answer = self._asker.take()
        if answer is None:
            return
        if answer.observation is not self._pending:
            self._record("late_answer", "an answer of an earlier episode was dropped")
        elif answer.chunk is None:
            self._fail(now, "policy_error", repr(answer.error))
        elif now - answer.observation.time > self.max_age:
            self._fail(now, "late_answer", f"it came after {now - answer.observation.time:.2f} s and was dropped")
        else:
            self._accept(now, answer, answer.chunk)

    def _accept(self, now: float, answer: Answer, chunk: ActionChunk) -> None:
        actions = chunk.actions
        if actions.ndim != 2 or actions.shape[1] != self._width or not np.isfinite(actions).all():
            self._fail(now, "unusable_answer", f"{actions.shape} numbers for {self._width} columns, or not finite")
            return
        if isinstance(self._chunking, RealTimeChunking):
            self._chunking.delayed(self.report.ticks - self._asked_tick)
        try:
            self._chunking.add(answer.observation.step, self._made_finer(chunk))
        except InputError as error:
            self._fail(now, "unusable_answer", str(error))
            return
        self._seen = answer.observation.time
        self._fresh, self._retry = False, 0.0
        self.report.chunks += 1
        self.report.latency.append(now - answer.observation.time)

    def _made_finer(self, chunk: ActionChunk) -> ActionChunk:
        if self._finer == 1:
            return chunk
        shares = np.where(self._robot.limits.relative, self._finer, 1).astype(np.float32)  # (A,)
        return ActionChunk(np.repeat(chunk.actions / shares, self._finer, axis=0), chunk.period / self._finer)

    def _fail(self, now: float, kind: str, detail: str) -> None:
        """Count it and back off: a policy that fails at once is not asked in every period."""
        self._record(kind, detail)
        self._retry = min(max(2 * self._retry, FIRST_RETRY), LONGEST_RETRY)
        self._next_question = now + self._retry

    def _action(self, now: float) -> NDArray[np.float32] | None:
        """What to command at this step, within the limits; None if there is nothing fresh."""
        if not self._chunking.has_action(self._step):
            return None
        if now - self._seen > self.max_age:
            self._record("stale", f"what the policy saw is {now - self._seen:.2f} s old, {self.max_age:g} s allowed")
            self._chunking.reset()
            return None
        action = self._chunking.action(self._step)
        if not np.isfinite(action).all():
            self._record("unusable_answer", f"an action is not finite: {action}")
            self._chunking.reset()
            return None
        return self._limited(action)

    def _limited(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        robot, here = self._robot, self._robot.position()
        reference = here if self._last is None else np.where(robot.limits.relative, here, self._last)
        limited, reasons = robot.limits.apply(action, reference, robot.period)
        for reason in reasons:
            self._record(reason, f"{np.round(action, 4).tolist()} became {np.round(limited, 4).tolist()}")
        self._last = limited
        return limited

    def _without_action(self, now: float) -> Command:
        """Hold, and after too long stop."""
        self._last = None  # the robot's own hold decides where it is
        self._held_since = min(self._held_since, now)
        held = now - self._held_since
        if held >= self.stop_after:
            return self._stop(f"no action for {held:.2f} s")
        if held >= LONG_HOLD:
            self._record("long_hold", f"no action for {held:.2f} s, the robot stops after {self.stop_after:g} s")
        self._robot.hold()
        self.report.holds += 1
        return Command.HOLD

    @property
    def _must_stop(self) -> bool:
        return self.report.stopped or self._stopping

    def _stop(self, why: str = "asked to") -> Command:
        """Stop the robot, for the rest of the episode."""
        first, self.report.stopped = not self.report.stopped, True
        self._stopping = False
        self._robot.stop()
        if first:
            self._record("stop", why)
        return Command.STOP

    def _lost(self, periods: int) -> None:
        self._record("late_tick", f"this machine was busy: {periods} period(s) without a command")

    def _record(self, kind: str, detail: str) -> None:
        self._interventions.record(kind, self._clock.now(), detail)


def _ratio(policy: float, robot: float) -> int:
    """How many of the robot's periods one of the policy's lasts.

    Raises:
        InputError: if it is no whole number.
    """
    ratio = round(policy / robot) if 0 < robot < math.inf else 0
    if ratio < 1 or abs(ratio * robot - policy) > 1e-3 * robot:
        raise InputError(f"the policy acts every {policy} s; the robot's period must be a whole part, it is {robot} s")
    return ratio
