"""Arms, clocks and askers that do exactly what a test says; nothing here waits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from policy_server.asking import Answer
from policy_server.robot import Limits, Sensed
from tests.policies import SPEC
from vla.api import ActionChunk, Observation, Policy, PolicySpec

PERIOD = 0.25  # a power of two: sums of it are exact
COLUMNS = len(SPEC.actions)
FINE = replace(SPEC, period=PERIOD, horizon=8, cameras=())


class FakeClock:
    """Time that passes only when somebody waits, or when `advance` is called."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def wait_until(self, time: float) -> None:
        self.time = max(self.time, time)

    def advance(self, seconds: float) -> None:
        self.time += seconds


class Arm:
    """Remembers what it was told; relative columns add up."""

    def __init__(self, limits: Limits | None = None, period: float = PERIOD) -> None:
        self.limits = limits or Limits.none([True, True, False])
        self.period = period
        self.at = np.zeros(COLUMNS)
        self.told: list[NDArray[np.float32] | str] = []
        self.on_observe: Callable[[], None] = lambda: None

    def observe(self) -> Sensed:
        self.on_observe()
        return Sensed({}, self.at[: len(SPEC.state)].astype(np.float32))

    def position(self) -> NDArray[np.floating]:
        return self.at.copy()

    def apply(self, action: NDArray[np.float32]) -> None:
        self.at = np.where(self.limits.relative, self.at + action, action)
        self.told.append(action)

    def hold(self) -> None:
        self.told.append("hold")

    def stop(self) -> None:
        self.told.append("stop")

    @property
    def actions(self) -> list[NDArray[np.float32]]:
        """The actions it executed."""
        return [told for told in self.told if not isinstance(told, str)]

    @property
    def firsts(self) -> list[float | str]:
        """What it was told, of actions the first column."""
        return [told if isinstance(told, str) else float(told[0]) for told in self.told]


class Numbered:
    """Its n-th answer has 100 * n + row in every column."""

    def __init__(self, spec: PolicySpec = FINE) -> None:
        self.spec = spec
        self.seen: list[Observation] = []
        self.resets: list[str] = []

    def infer(self, observation: Observation) -> ActionChunk:
        self.spec.check(observation)
        self.seen.append(observation)
        rows = 100.0 * (len(self.seen) - 1) + np.arange(self.spec.horizon)
        actions = np.repeat(rows[:, None], len(self.spec.actions), axis=1).astype(np.float32)
        return ActionChunk(actions, self.spec.period)

    def reset(self, session: str) -> None:
        self.resets.append(session)


class Faulty(Numbered):
    """Does what `does` says instead of answering, as long as it is set."""

    def __init__(self, does: Callable[[], ActionChunk] | None = None) -> None:
        super().__init__()
        self.does = does
        self.asked = 0

    def infer(self, observation: Observation) -> ActionChunk:
        self.asked += 1
        return super().infer(observation) if self.does is None else self.does()


class Delayed:
    """Asks at once and hands the answer out `delays[n]` periods later, the last delay for ever; math.inf is never."""

    def __init__(
        self, policy: Policy, clock: FakeClock, delays: Sequence[float] = (0,), period: float = PERIOD
    ) -> None:
        self._policy, self._clock, self._delays, self._period = policy, clock, list(delays), period
        self._waiting: tuple[float, Answer] | None = None

    @property
    def busy(self) -> bool:
        return self._waiting is not None

    def ask(self, observation: Observation, reset: bool) -> None:
        assert not self.busy
        delay = self._delays.pop(0) if len(self._delays) > 1 else self._delays[0]
        try:
            if reset:
                self._policy.reset(observation.session)
            answer = Answer(observation, chunk=self._policy.infer(observation))
        except Exception as error:
            answer = Answer(observation, error=error)
        self._waiting = self._clock.now() + delay * self._period, answer

    def take(self) -> Answer | None:
        if self._waiting is None or self._waiting[0] > self._clock.now():
            return None
        answer, self._waiting = self._waiting[1], None
        return answer

    def close(self) -> None:
        pass


NEVER = math.inf
