"""Keeping a rate: when each period of a control loop begins (standard library only)."""

from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Protocol


class Clock(Protocol):
    """Time as a control loop sees it."""

    def now(self) -> float:
        """[s], never going back."""
        ...

    def wait_until(self, time: float) -> None:
        """Return at this time [s]; at once if it has passed."""
        ...


class MonotonicClock:
    """This machine's monotonic clock."""

    def now(self) -> float:
        """[s] since some moment."""
        return monotonic()

    def wait_until(self, time: float) -> None:
        """Sleep until then."""
        sleep(max(0.0, time - monotonic()))


def paced(
    clock: Clock, period: float, ticks: int | None, begun: Callable[[float], None], lost: Callable[[int], None]
) -> Iterator[None]:
    """Yield at the beginning of every period; what passed meanwhile is lost, never made up for in a burst.

    Args:
        clock: time.
        period: [s].
        ticks: periods to yield; None for endless.
        begun: called before each yield with how late it is [s].
        lost: called with the number of periods that were lost, if any were.
    """
    due, done = clock.now(), 0
    while ticks is None or done < ticks:
        clock.wait_until(due)
        late = max(0.0, clock.now() - due)
        begun(late)
        if late >= period:
            passed = int(late / period)
            due += passed * period
            lost(passed)
        yield
        due += period
        done += 1
