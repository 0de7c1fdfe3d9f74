"""What happened in one episode of a control loop (numpy only)."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

REMEMBERED = 10_000  # newest measurements that percentiles are taken of; bounds the memory of an endless run


def _measurements() -> deque[float]:
    return deque(maxlen=REMEMBERED)


@dataclass
class Report:
    """Counters of one episode; grows while it runs.

    Attributes:
        ticks: periods; each had exactly one command: an action, a hold or the stop.
        actions: periods in which the policy's action was executed.
        holds: periods in which the robot held.
        chunks: answers that were used.
        stopped: whether the robot was stopped.
        interventions: kind -> how often: workspace, step, speed (limits); stale, late_answer, policy_error,
            unusable_answer (the policy); long_hold, stop (the watchdog); late_tick (this machine).
        lateness: [s] between when a command was due and when its tick began.
        latency: [s] between an observation and the tick that used its answer.
    """

    ticks: int = 0
    actions: int = 0
    holds: int = 0
    chunks: int = 0
    stopped: bool = False
    interventions: Counter[str] = field(default_factory=Counter)
    lateness: deque[float] = field(default_factory=_measurements, repr=False)
    latency: deque[float] = field(default_factory=_measurements, repr=False)

    def __str__(self) -> str:
        ended = "stopped" if self.stopped else "holding"
        found = ", ".join(f"{kind} {count}" for kind, count in sorted(self.interventions.items())) or "none"
        return (
            f"{self.ticks} periods: {self.actions} actions, {self.holds} holds, {self.chunks} chunks, left {ended}; "
            f"interventions: {found}; late by {_percentiles(self.lateness)}; latency {_percentiles(self.latency)}"
        )


def percentile_ms(seconds: Iterable[float], percent: float) -> float:
    """A percentile in milliseconds; NaN if nothing was measured."""
    values = np.fromiter(seconds, float)
    return 1000 * float(np.percentile(values, percent)) if len(values) else float("nan")


def _percentiles(seconds: Iterable[float]) -> str:
    values = list(seconds)
    return f"p50 {percentile_ms(values, 50):.2f} ms, p99 {percentile_ms(values, 99):.2f} ms"
