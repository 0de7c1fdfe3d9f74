"""Milliseconds per stage, measured outside the model."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from time import perf_counter
from typing import Protocol

import torch


class Spans(Protocol):
    """Watches the stages of one answer; a policy runs each stage inside `spans(stage)`."""

    @property
    def milliseconds(self) -> Mapping[str, float]:
        """Stage -> duration [ms], of the stages that ended."""
        ...

    def __call__(self, stage: str) -> AbstractContextManager[object]: ...


class StageTimer:
    """Spans that measure how long they took; on a GPU they wait for the device on both sides of a stage.

    Attributes:
        milliseconds: stage -> duration [ms].
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._wait()
        start = perf_counter()
        outer = _running.set(self)
        try:
            yield
        finally:
            _running.reset(outer)
        self._wait()
        self.milliseconds[stage] = 1e3 * (perf_counter() - start)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a part of the stages that is met several times; its durations add up."""
        self._wait()
        start = perf_counter()
        yield
        self._wait()
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1e3 * (perf_counter() - start)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Untimed:
    """Spans that do nothing."""

    milliseconds: Mapping[str, float] = {}

    def __call__(self, stage: str) -> AbstractContextManager[None]:
        return nullcontext()


_running: ContextVar[StageTimer | None] = ContextVar("running", default=None)


def part(name: str) -> AbstractContextManager[None]:
    """Around a part of a stage that shall be reported by itself, such as choosing tokens; it stays in its stage's time.

    While a GPU records a stage nothing can be timed, and a recorded stage is replayed as a whole.
    """
    timer = _running.get()
    if timer is None or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return nullcontext()
    return timer.part(name)
