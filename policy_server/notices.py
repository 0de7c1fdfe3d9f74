"""Counts what may happen very often, and logs it at a bounded rate."""

import logging
from collections import Counter
from typing import Any


class Notices:
    """How often each kind happened; every kind is logged at most once per `interval`, with the number since.

    Args:
        log: where to.
        interval: [s] between two lines about one kind.

    Attributes:
        counts: kind -> how often.
    """

    def __init__(self, log: logging.Logger, interval: float = 1.0) -> None:
        self.interval = interval
        self.counts: Counter[str] = Counter()
        self._log = log
        self._logged: dict[str, tuple[float, int]] = {}

    def record(self, kind: str, now: float, detail: str, level: int = logging.WARNING, **options: Any) -> None:
        """Count one, and log it if this kind was not logged in the last `interval`.

        Args:
            kind: for example `workspace`; there must be few of them.
            now: [s] on a clock that never goes back.
            detail: what happened, for the log.
            level: of the line.
            options: of `logging.Logger.log`, for example `exc_info`.
        """
        self.counts[kind] += 1
        last, count = self._logged.get(kind, (float("-inf"), 0))
        if now - last >= self.interval:
            since = self.counts[kind] - count
            often = f" ({since} times since the last line)" if since > 1 else ""
            self._log.log(level, "%s: %s%s", kind, detail, often, **options)
            self._logged[kind] = now, self.counts[kind]
