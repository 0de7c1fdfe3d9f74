"""Laws of the control loop: a command in every period whatever the policy does, and the documented actions."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from policy_server.control_loop import Command, ControlLoop
from policy_server.report import Report
from policy_server.robot import Limits
from tests.policy_server.arms import COLUMNS, NEVER, PERIOD, Arm, Delayed, FakeClock, Faulty, Numbered
from vla.api import ActionChunk, InputError, Observation, Policy
from vla.chunking import AdaptiveEnsemble, Chunking, OpenLoop, RealTimeChunking

MODES: list[Callable[[], Chunking]] = [
    lambda: OpenLoop(execute=4),
    lambda: AdaptiveEnsemble(horizon=2),
    lambda: RealTimeChunking(execute=4),
]


def loop_of(
    arm: Arm, policy: Policy, chunking: Chunking, delays: Sequence[float] = (0,), **settings: float
) -> tuple[ControlLoop, FakeClock]:
    clock = FakeClock()
    asker = Delayed(policy, clock, delays)
    return ControlLoop(arm, policy, chunking, clock=clock, asker=asker, **settings), clock  # type: ignore[arg-type]


def run(
    arm: Arm, policy: Policy, chunking: Chunking, ticks: int, delays: Sequence[float] = (0,), **settings: float
) -> Report:
    return loop_of(arm, policy, chunking, delays, **settings)[0].run("lift", "s", ticks)


def not_a_number() -> ActionChunk:
    chunk = ActionChunk(np.zeros((8, COLUMNS), np.float32), PERIOD)
    chunk.actions[3, 1] = np.nan  # after the check at construction, as a faulty policy could
    return chunk


def broken() -> ActionChunk:
    raise ZeroDivisionError("the policy is broken")


FAULTS: dict[str, tuple[Policy, Sequence[float]]] = {
    "dead": (Numbered(), [NEVER]),
    "slow": (Numbered(), [7]),
    "raises": (Faulty(broken), [0]),
    "not finite": (Faulty(not_a_number), [0]),
    "too few columns": (Faulty(lambda: ActionChunk(np.zeros((8, 2), np.float32), PERIOD)), [1]),
    "too few rows": (Faulty(lambda: ActionChunk(np.zeros((1, COLUMNS), np.float32), PERIOD)), [1]),
    "dies": (Numbered(), [0, 1, NEVER]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_robot_gets_one_command_in_every_period_whatever_the_policy_does(
    mode: Callable[[], Chunking], fault: str
) -> None:
    arm, (policy, delays) = Arm(), FAULTS[fault]
    loop, clock = loop_of(arm, policy, mode(), delays, stop_after=1000.0)
    loop.begin("lift", "s")
    for tick in range(60):
        loop.tick()
        assert len(arm.told) == tick + 1
        assert all(isinstance(told, str) or np.isfinite(told).all() for told in arm.told)
        clock.advance(PERIOD)
    assert loop.report.actions + loop.report.holds == loop.report.ticks == 60
    if fault not in ("slow", "dies"):
        assert set(arm.told) == {"hold"}  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_hold_then_stop(mode: Callable[[], Chunking]) -> None:
    arm = Arm()
    report = run(arm, Numbered(), mode(), 1000, [0, NEVER], max_age=1000.0, stop_after=10 * PERIOD)
    assert report.stopped
    last = len(arm.told) - 1
    assert arm.told[last] == "stop"
    assert arm.told[last - 10 : last] == ["hold"] * 10
    assert "hold" not in arm.firsts[: last - 10]
    assert report.interventions["stop"] == 1


def test_a_robot_that_never_gets_an_action_holds_then_stops() -> None:
    arm = Arm()
    assert run(arm, Numbered(), OpenLoop(2), 1000, [NEVER], stop_after=3 * PERIOD).stopped
    assert arm.told == ["hold"] * 3 + ["stop"]


def test_actions_of_an_observation_that_is_too_old_are_not_executed() -> None:
    arm = Arm()
    report = run(arm, Numbered(), AdaptiveEnsemble(1), 8, [0, NEVER], max_age=3 * PERIOD)
    assert arm.firsts == [0, 1, 2, 3, "hold", "hold", "hold", "hold", "hold"]
    assert report.interventions["stale"] == 1


def test_an_answer_that_comes_too_late_is_dropped_and_the_next_is_used() -> None:
    arm = Arm()
    report = run(arm, Numbered(), OpenLoop(2), 6, [3, 1], max_age=2 * PERIOD)
    assert arm.firsts == ["hold"] * 5 + [100.0, "hold"]
    assert report.interventions["late_answer"] == 1


def test_open_loop_executes_rows_in_order_and_holds_while_it_waits() -> None:
    arm, policy = Arm(), Numbered()
    run(arm, policy, OpenLoop(3), 10, [2])
    assert arm.firsts == ["hold", "hold", 0, 1, 2, "hold", "hold", 100, 101, 102, "hold"]
    assert [seen.step for seen in policy.seen] == [0, 3]
    assert policy.resets == ["s"]
    assert [seen.time for seen in policy.seen] == [100.0, 100.0 + 5 * PERIOD]


def test_the_ensemble_averages_what_late_chunks_say_about_the_step_that_is_executed() -> None:
    arm, policy = Arm(), Numbered()
    run(arm, policy, AdaptiveEnsemble(horizon=2, alpha=0.0), 8, [2])
    assert [seen.step for seen in policy.seen] == [0, 1, 3, 5]
    both = [(3 + 102) / 2, (4 + 103) / 2, (104 + 202) / 2]
    assert arm.firsts == ["hold", "hold", 0, 1, 2, *both, "hold"]


@pytest.mark.parametrize("mode", MODES)
def test_without_latency_the_loop_is_the_synchronous_rollout(mode: Callable[[], Chunking]) -> None:
    arm, policy, chunking, expected = Arm(), Numbered(), mode(), []
    run(arm, Numbered(), mode(), 12)
    for step in range(12):
        if chunking.needs_chunk(step):
            chunking.add(step, policy.infer(Observation({}, "lift", np.zeros(2, np.float32), step=step)))
        expected.append(float(chunking.action(step)[0]))
    assert arm.firsts == [*expected, "hold"]


def test_a_longer_period_is_made_finer_changes_divided_and_positions_repeated() -> None:
    arm = Arm(period=PERIOD / 2)
    run(arm, Numbered(), OpenLoop(16), 4)
    np.testing.assert_array_equal(arm.told[:4], [[0, 0, 0], [0, 0, 0], [0.5, 0.5, 1], [0.5, 0.5, 1]])


def test_a_policy_that_fails_is_asked_again_with_back_off() -> None:
    policy = Faulty(broken)
    loop, clock = loop_of(Arm(), policy, OpenLoop(2), stop_after=1000.0)
    loop.begin("lift", "s")
    asked = []
    for tick in range(400):
        before = policy.asked
        loop.tick()
        asked += [tick] if policy.asked > before else []
        clock.advance(1 / 64)
    waits = np.diff(asked) / 64
    assert (waits[:5] >= [0.05, 0.1, 0.2, 0.4, 0.8]).all()
    assert (waits[5:] <= 1.0 + 1 / 64).all()
    policy.does = None
    clock.advance(1.0)
    assert loop.tick() is Command.ACTION


def test_an_episode_begins_with_a_reset_and_ignores_answers_to_the_last() -> None:
    arm, policy = Arm(), Numbered()
    loop, clock = loop_of(arm, policy, OpenLoop(4), [3, 0])
    loop.begin("lift", "first")
    loop.tick()
    loop.begin("drop", "second")
    clock.advance(3 * PERIOD)
    assert loop.tick() is Command.ACTION
    assert arm.firsts == ["hold", 100.0]
    assert policy.resets == ["first", "second"]
    assert [(seen.instruction, seen.session, seen.step) for seen in policy.seen[1:]] == [("drop", "second", 0)]
    assert loop.report.interventions == {"late_answer": 1}


def test_periods_that_were_missed_are_counted_and_not_made_up_for() -> None:
    arm = Arm()
    loop, clock = loop_of(arm, Numbered(), AdaptiveEnsemble(1))
    busy = iter([0.0, 2.5 * PERIOD])
    arm.on_observe = lambda: clock.advance(next(busy, 0.0))
    report = loop.run("lift", "s", 6)
    assert report.ticks == 6
    assert report.interventions["late_tick"] == 1
    assert max(report.lateness) == 1.5 * PERIOD
    assert clock.now() == 100.0 + 6 * PERIOD


def test_a_failing_driver_stops_the_robot_and_is_raised() -> None:
    arm = Arm()

    def unplugged() -> None:
        raise OSError("camera unplugged")

    arm.on_observe = unplugged
    with pytest.raises(OSError, match="camera unplugged"):
        run(arm, Numbered(), OpenLoop(2), 5)
    assert set(arm.firsts) == {"stop"}


def test_a_failing_driver_stops_the_robot_also_when_somebody_else_keeps_the_time() -> None:
    arm = Arm()
    loop, _ = loop_of(arm, Numbered(), OpenLoop(2))
    loop.begin("lift", "s")
    arm.limits = Limits([True] * 3, [1.0] * 3, [-1.0] * 3, [1.0] * 3)
    arm.at[2] = np.nan
    with pytest.raises(InputError, match="limits need the robot's position"):
        loop.tick()
    assert arm.told == ["stop"]


def test_actions_that_are_not_finite_are_held_back_wherever_they_come_from() -> None:
    class Overflowing(OpenLoop):
        def action(self, step: int) -> NDArray[np.float32]:
            return np.full(COLUMNS, np.inf, np.float32)

    arm = Arm()
    report = run(arm, Numbered(), Overflowing(4), 5)
    assert set(arm.firsts) == {"hold"}
    assert report.interventions["unusable_answer"] == 5


def test_after_a_hold_positions_start_from_where_the_robot_is() -> None:
    arm = Arm(Limits([False] * 3, [0.5] * 3, [-900.0] * 3, [900.0] * 3))
    loop, clock = loop_of(arm, Numbered(), OpenLoop(2), [0, 2, 0])
    loop.begin("lift", "s")
    for tick in range(6):
        if tick == 3:
            arm.at[:] = 5.0  # pushed by hand while it holds
        loop.tick()
        clock.advance(PERIOD)
    assert arm.firsts == [0, 0.5, "hold", "hold", 5.5, 6.0]


def test_stop_from_elsewhere_stops_the_robot_at_the_next_tick() -> None:
    arm = Arm()
    loop, _ = loop_of(arm, Numbered(), AdaptiveEnsemble(1))
    arm.on_observe = lambda: loop.stop() if len(arm.told) == 3 else None
    report = loop.run("lift", "s")
    assert (arm.firsts[3:], report.stopped) == (["stop"], True)


def test_limits_hold_for_whatever_the_policy_says_and_every_intervention_is_counted() -> None:
    limits = Limits([True, True, False], step=[0.5, 0.5, 0.25], low=[-1, -1, -9], high=[2, 1, 9])
    arm = Arm(limits)
    report = run(arm, Numbered(), OpenLoop(8), 20)
    path = np.array(arm.actions)
    assert (np.abs(path[:, :2]) <= 0.5).all()
    assert np.abs(np.diff(path[:, 2])).max() <= 0.25
    assert arm.at[0] <= 2
    assert arm.at[1] <= 1
    assert report.interventions["step"] >= 10
    assert report.interventions["workspace"] >= 10


def test_the_log_says_what_happened_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "policy_server.control_loop"):
        report = run(Arm(Limits([True] * 3, [0.1] * 3, [-9] * 3, [9] * 3)), Numbered(), AdaptiveEnsemble(1), 40)
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("step: ")]
    assert report.interventions["step"] >= 38
    assert len(lines) == 10  # 40 periods of 0.25 s, a line a second
    assert "4 times since the last line" in lines[-1]
    assert "session 's' ended: 40 periods: 40 actions" in caplog.text


def test_robots_and_policies_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"actions \['dx', 'dy', 'gripper'\], the robot's limits have 2"):
        loop_of(Arm(Limits.none([True, True])), Numbered(), OpenLoop(1))
    with pytest.raises(InputError, match=r"must be positive, got 4\.0 and 0"):
        loop_of(Arm(), Numbered(), OpenLoop(1), stop_after=0)
    with pytest.raises(InputError, match=r"must be positive, got nan and 5\.0"):
        loop_of(Arm(), Numbered(), OpenLoop(1), max_age=np.nan)


@pytest.mark.parametrize("period", [0.2, 0.5, 0.0, -0.25, np.nan, np.inf])
def test_a_robot_s_period_is_a_whole_part_of_the_policy_s(period: float) -> None:
    with pytest.raises(InputError, match=f"every 0.25 s; the robot's period must be a whole part, it is {period} s"):
        loop_of(Arm(period=period), Numbered(), OpenLoop(1))


@pytest.mark.parametrize("way", [OpenLoop, AdaptiveEnsemble, RealTimeChunking])
def test_more_rows_than_a_chunk_has_are_refused_before_the_robot_moves(way: Callable[[int], Chunking]) -> None:
    loop_of(Arm(), Numbered(), way(8))
    with pytest.raises(InputError, match="is 9, but the policy's chunks have only 8 rows: allowed are 1 to 8"):
        loop_of(Arm(), Numbered(), way(9))
    loop_of(Arm(period=PERIOD / 2), Numbered(), way(16))  # chunks are made finer
    with pytest.raises(InputError, match="allowed are 1 to 16"):
        loop_of(Arm(period=PERIOD / 2), Numbered(), way(17))
