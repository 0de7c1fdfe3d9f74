"""What a place in a cluster does when its machine is lost, or none comes: Ray and the clock are stand-ins."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from eval import cluster
from eval.cluster import PATIENCE, Place
from eval.rollout import Episode
from eval.spread import WorkerLost


class RayError(Exception):
    """As Ray's."""


class GetTimeoutError(RayError):
    """As Ray's."""


class Cluster:
    """Ray as a place sees it: every look takes the time it may take, and shows what comes next.

    Args:
        shown: of each look at a group: "up", "waiting" or "broken"; the last one again and again.
    """

    exceptions = SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError)

    def __init__(self, *shown: str) -> None:
        self.shown, self.now, self.hired = list(shown), 0.0, 0

    def monotonic(self) -> float:
        return self.now

    def hire(self) -> Any:
        self.hired += 1
        ready, attempt = (SimpleNamespace(remote=lambda *_, what=what: what) for what in ("ready", "attempt"))
        return SimpleNamespace(ready=ready, attempt=attempt)

    def get(self, what: str, timeout: float = 0.0) -> Any:
        if what == "attempt":
            raise RayError("the node died")
        self.now += timeout
        seen = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        if seen != "up":
            raise GetTimeoutError if seen == "waiting" else RayError
        return True


@pytest.fixture
def place_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(stand_in: Cluster) -> Place:
        closing = threading.Event()
        monkeypatch.setattr(closing, "wait", lambda timeout: False)
        monkeypatch.setattr(cluster, "_ray", lambda: stand_in)
        monkeypatch.setattr(cluster, "time", stand_in)
        return Place(stand_in.hire, closing)

    return make


def test_all_workers_of_a_lost_machine_wait_for_another_together(place_in: Any) -> None:
    machines = Cluster("waiting")
    place = place_in(machines)
    assert not any(place.renew() for _ in range(8))
    assert PATIENCE <= machines.now < PATIENCE + 10


def test_a_group_that_fails_to_come_up_is_hired_again(place_in: Any) -> None:
    machines = Cluster("waiting", "broken", "up")
    assert place_in(machines).renew()
    assert machines.hired == 2


def test_each_loss_has_a_patience_of_its_own(place_in: Any) -> None:
    machines = Cluster(*["waiting"] * 500, "up", *["waiting"] * 500, "up")
    place = place_in(machines)
    assert place.renew()
    with pytest.raises(WorkerLost, match="the node died"):
        place.attempt(Episode("toy", 0))
    assert place.renew()
    assert machines.hired == 2
