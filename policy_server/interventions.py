"""Counts what a control loop had to do for safety, and logs it at a bounded rate."""

import logging
from collections import Counter

log = logging.getLogger("policy_server.control_loop")


class Interventions:
    """How often each kind happened; every kind is logged at most once per `interval`, with the number since.

    Args:
        interval: [s] between two lines about one kind.

    Attributes:
        counts: kind -> how often.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval
        self.counts: Counter[str] = Counter()
        self._logged: dict[str, tuple[float, int]] = {}

    def record(self, kind: str, now: float, detail: str) -> None:
        """Count one, and log it if this kind was not logged in the last `interval`.

        Args:
            kind: for example `workspace`.
            now: [s] on the loop's clock.
            detail: what happened, for the log.
        """
        self.counts[kind] += 1
        last, count = self._logged.get(kind, (float("-inf"), 0))
        if now - last >= self.interval:
            since = self.counts[kind] - count
            log.warning("%s: %s%s", kind, detail, f" ({since} times since the last line)" if since > 1 else "")
            self._logged[kind] = now, self.counts[kind]
