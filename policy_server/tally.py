"""What a server counts: outcomes, milliseconds by stage, what waits (standard library only).

The server's threads count; any thread may ask for a `Snapshot`.
"""

import math
import sys
import threading
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

EDGES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, math.inf)  # [ms]
RECENT = 500  # newest values of a stage that percentiles are taken of
MOST_STAGES = 40  # a policy names its stages; one that invents names must not fill the memory
MOST_SESSIONS, SHOWN_SESSIONS, SHOWN_NAME = 1024, 24, 60  # a reply's header has room for so many
RATE_WINDOW = 10.0  # [s]
OTHER = "other"
ANSWERED, RESET, SUPERSEDED, EXPIRED = "answered", "reset", "superseded", "expired"


class Load(NamedTuple):
    """What a server has to do.

    Attributes:
        busy_since: [s] when the policy was given what it does, or None if it is idle.
        waiting_since: [s] when the request that has waited longest came, or None if nothing waits.
        pending: requests that wait.
        sessions: those the policy may remember something of.
    """

    busy_since: float | None = None
    waiting_since: float | None = None
    pending: int = 0
    sessions: int = 0


@dataclass
class Stage:
    """Milliseconds of one stage.

    Attributes:
        counts: values up to each of `EDGES` and above the one before.
        total: [ms] sum of all.
        recent: the newest, oldest first.
    """

    counts: list[int] = field(default_factory=lambda: [0] * len(EDGES))
    total: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, milliseconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(EDGES, milliseconds)] += 1
        self.total += milliseconds
        self.recent.append(milliseconds)

    def copy(self) -> "Stage":
        """One that does not change."""
        return Stage(list(self.counts), self.total, self.recent.copy())

    def summary(self) -> dict[str, float]:
        """How many, and percentiles of the recent ones [ms]."""
        ordered = sorted(self.recent)
        ranks = {
            f"p{percent}": ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] for percent in (50, 90, 99)
        }
        return {"n": sum(self.counts), **{name: round(value, 3) for name, value in ranks.items()}}


@dataclass(frozen=True)
class Snapshot:
    """What was counted until now.

    Attributes:
        outcomes: answered, reset, or the error type of a refusal -> how often.
        late: answers that left after their deadline.
        stages: stage -> milliseconds.
        sessions: session -> (answers, time of the last one [s]), the one used last at the end.
        rate: [1/s] answers in the last RATE_WINDOW seconds.
        load: what there is to do.
        uptime: [s].
        taken: [s] when, on this process's clock.
    """

    outcomes: Mapping[str, int]
    late: int
    stages: Mapping[str, Stage]
    sessions: Mapping[str, tuple[int, float]]
    rate: float
    load: Load
    uptime: float
    taken: float

    @property
    def busy_ms(self) -> float | None:
        """How long the policy has been running."""
        return _since(self.load.busy_since, self.taken)

    @property
    def queue_age_ms(self) -> float | None:
        """How long the oldest waiting request has waited."""
        return _since(self.load.waiting_since, self.taken)

    def body(self, watchers: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The body of a reply to `metrics`; sessions used last come first."""
        newest = list(self.sessions.items())[: -SHOWN_SESSIONS - 1 : -1]
        return {
            "uptime": round(self.uptime, 3),
            "rate": round(self.rate, 3),
            "outcomes": dict(self.outcomes),
            "late": self.late,
            "busy_ms": self.busy_ms,
            "queue_age_ms": self.queue_age_ms,
            "pending": self.load.pending,
            "sessions": self.load.sessions,
            "stages": {name: stage.summary() for name, stage in self.stages.items()},
            "robots": [[name[:SHOWN_NAME], count, round(self.taken - last, 3)] for name, (count, last) in newest],
            "resident_bytes": resident_bytes(),
            "gpu_bytes": gpu_bytes(),
            "watchers": list(watchers),
        }


class Tally:
    """Counts what became of every request.

    Attributes:
        load: what there is to do; set by the I/O thread, never changed in place.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()
        self._late = 0
        self._stages: dict[str, Stage] = {}
        self._sessions: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._answers: deque[float] = deque(maxlen=10_000)
        self._started = perf_counter()
        self.load = Load()

    def answered(self, session: str, stages: Mapping[str, float], deadline_ms: float | None, now: float) -> None:
        """Count an answer and its milliseconds, among them `server`: arrival to departure."""
        with self._lock:
            self._outcomes[ANSWERED] += 1
            self._late += deadline_ms is not None and stages["server"] > deadline_ms
            self._answers.append(now)
            count, _ = self._sessions.pop(session, (0, 0.0))
            self._sessions[session] = count + 1, now
            if len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
            for name, milliseconds in stages.items():
                self._stage(name).add(milliseconds)

    def counted(self, outcome: str) -> None:
        """Count anything else: a reset, or the error type of a refusal."""
        with self._lock:
            self._outcomes[outcome] += 1

    def snapshot(self) -> Snapshot:
        """What was counted until now."""
        now = perf_counter()
        with self._lock:
            answers = sum(now - answer <= RATE_WINDOW for answer in self._answers)
            return Snapshot(
                outcomes=dict(self._outcomes),
                late=self._late,
                stages={name: stage.copy() for name, stage in self._stages.items()},
                sessions=dict(self._sessions),
                rate=answers / max(1e-3, min(RATE_WINDOW, now - self._started)),
                load=self.load,
                uptime=now - self._started,
                taken=now,
            )

    def _stage(self, name: str) -> Stage:
        known = self._stages.get(name)
        if known is not None:
            return known
        return self._stages.setdefault(name if len(self._stages) < MOST_STAGES else OTHER, Stage())


def resident_bytes() -> int | None:
    """Memory of this process, or None where the kernel does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    import resource

    return pages * resource.getpagesize()


def gpu_bytes() -> dict[str, int] | None:
    """What torch holds on the GPU, or None without one: bytes in use, reserved, and in use at most so far.

    Asks torch's own allocator, never the driver, so that it may be called while the model runs.
    """
    torch: Any = sys.modules.get("torch")  # a server without a model never loads it
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    found = torch.cuda.memory_stats()
    keys = {"allocated": "allocated_bytes.all.current", "reserved": "reserved_bytes.all.current"}
    keys |= {"peak": "allocated_bytes.all.peak"}
    return {name: int(found.get(key, 0)) for name, key in keys.items()}


def _since(start: float | None, now: float) -> float | None:
    return None if start is None else round(max(0.0, 1000 * (now - start)), 3)
