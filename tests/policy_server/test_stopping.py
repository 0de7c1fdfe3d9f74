"""A robot that was stopped stays so until the next episode, and a wish to stop is never lost."""

from collections.abc import Sequence

import pytest

from policy_server.control_loop import Command, ControlLoop
from tests.policy_server.arms import PERIOD, Arm, Delayed, FakeClock, Numbered
from vla.chunking import OpenLoop


class Driven:
    """A loop whose ticks a test makes, one in every period; holds for eight before it stops."""

    def __init__(self, delays: Sequence[float] = (0,), arm: Arm | None = None) -> None:
        self.arm, self.clock, self.policy = arm or Arm(), FakeClock(), Numbered()
        asker = Delayed(self.policy, self.clock, delays)
        self.loop = ControlLoop(
            self.arm, self.policy, OpenLoop(4), stop_after=8 * PERIOD, clock=self.clock, asker=asker
        )

    def ticks(self, count: int) -> list[Command]:
        told = []
        for _ in range(count):
            told.append(self.loop.tick())
            self.clock.advance(PERIOD)
        return told


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_an_answer_after_the_watchdog_s_stop_moves_nothing_until_the_next_episode() -> None:
    driven = Driven([12, 0])
    driven.loop.begin("lift", "s")
    assert driven.ticks(16) == [Command.HOLD] * 8 + [Command.STOP] * 8
    assert driven.arm.told == ["hold"] * 8 + ["stop"] * 8
    report = driven.loop.report
    assert (report.ticks, report.stopped, report.interventions["stop"]) == (16, True, 1)
    driven.loop.begin("lift", "again")
    assert driven.ticks(1) == [Command.ACTION]
    assert not driven.loop.report.stopped


def test_after_a_failing_driver_the_robot_is_stopped_and_not_looked_at_again(driven: Driven) -> None:
    def unplugged() -> None:
        raise OSError("camera unplugged")

    driven.arm.on_observe = unplugged
    driven.loop.begin("lift", "s")
    with pytest.raises(OSError, match="camera unplugged"):
        driven.loop.tick()
    assert driven.ticks(3) == [Command.STOP] * 3
    assert driven.arm.told == ["stop"] * 4
    assert driven.loop.report.stopped
    assert driven.loop.report.interventions == {"stop": 1}


def test_a_robot_that_could_not_be_stopped_is_told_again() -> None:
    class Deaf(Arm):
        def stop(self) -> None:
            super().stop()
            if len(self.told) == 3:
                raise OSError("no reply on the bus")

    driven = Driven(arm=Deaf())
    driven.loop.begin("lift", "s")
    driven.ticks(2)
    driven.loop.stop()
    with pytest.raises(OSError, match="no reply"):
        driven.loop.tick()
    assert driven.ticks(2) == [Command.STOP] * 2


def test_stopping_before_a_run_ends_that_run_at_once_and_no_other(driven: Driven) -> None:
    driven.loop.stop()
    report = driven.loop.run("lift", "s", 5)
    assert (report.ticks, report.actions, report.stopped) == (1, 0, True)
    assert (driven.arm.told, driven.policy.seen) == (["stop"], [])
    report = driven.loop.run("lift", "again", 5)
    assert (report.actions, report.stopped) == (5, False)


def test_stopping_before_an_episode_of_one_s_own_timer_ends_that_episode(driven: Driven) -> None:
    driven.loop.stop()
    driven.loop.begin("lift", "s")
    assert driven.ticks(3) == [Command.STOP] * 3
    driven.loop.stop()  # once more while it stands: nothing is left of it either
    driven.ticks(1)
    driven.loop.begin("lift", "again")
    assert driven.ticks(2) == [Command.ACTION] * 2


def test_stopping_after_the_last_period_stops_instead_of_holding(driven: Driven) -> None:
    class Late(Arm):
        def hold(self) -> None:
            raise AssertionError("it was asked to stop")

    driven = Driven(arm=Late())
    apply = driven.arm.apply
    driven.arm.apply = lambda action: (apply(action), driven.loop.stop())[0]
    report = driven.loop.run("lift", "s", 1)
    assert driven.arm.firsts == [0, "stop"]
    assert (report.ticks, report.stopped) == (1, True)


def test_before_the_first_episode_a_tick_only_stops(driven: Driven) -> None:
    assert driven.ticks(2) == [Command.STOP] * 2
    assert driven.arm.told == ["stop"] * 2
