"""Real-time chunking in the loop: no gap between chunks, and what is committed is executed exactly."""

from dataclasses import replace

import numpy as np
import pytest

from policy_server.client import RemotePolicy
from policy_server.control_loop import ControlLoop
from policy_server.report import Report
from policy_server.server import PolicyServer
from tests.policy_server.arms import FINE, Arm, Delayed, FakeClock, Numbered
from vla.api import ActionChunk, InputError, Observation, PolicySpec
from vla.chunking import RealTimeChunking, prefix_weights


def spec(inpaints: bool) -> PolicySpec:
    return replace(FINE, inpaints=inpaints)


def run(policy: Numbered, delays: list[float], ticks: int, execute: int = 4) -> tuple[Arm, Report]:
    clock, arm = FakeClock(), Arm()
    loop = ControlLoop(arm, policy, RealTimeChunking(execute), clock=clock, asker=Delayed(policy, clock, delays))
    return arm, loop.run("lift", "s", ticks)


def test_the_next_chunk_is_asked_for_while_this_one_runs_and_starts_at_its_own_row() -> None:
    policy = Numbered(spec(inpaints=True))
    arm, _ = run(policy, [2], 14)
    assert [seen.step for seen in policy.seen] == [0, 4, 8]
    assert arm.firsts[:-1] == ["hold", "hold", 0, 1, 2, 3, 4, 5, 102, 103, 104, 105, 202, 203]


def test_a_policy_that_inpaints_is_told_what_is_committed_and_what_is_frozen() -> None:
    policy = Numbered(spec(inpaints=True))
    run(policy, [2], 8)
    first, second = policy.seen
    assert (first.committed, first.frozen) == (None, 0)
    assert second.committed is not None
    np.testing.assert_array_equal(second.committed[:, 0], [4, 5, 6, 7])
    assert second.frozen == 2


def test_the_frozen_rows_are_executed_exactly_even_if_the_answer_is_early_or_ignores_them() -> None:
    arm, _ = run(Numbered(spec(inpaints=True)), [3, 0], 10)
    assert arm.firsts[:-1] == ["hold", "hold", "hold", 0, 1, 2, 3, 4, 5, 6]


def test_the_longest_recent_delay_picks_the_overlap() -> None:
    policy = Numbered(spec(inpaints=True))
    run(policy, [1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 60)
    frozen = [seen.frozen for seen in policy.seen]
    assert frozen[:12] == [0, 1, *[3] * 10]
    assert frozen[12:14] == [1, 1]


def test_a_policy_that_cannot_inpaint_has_old_and_new_actions_averaged() -> None:
    policy = Numbered(spec(inpaints=False))
    arm, _ = run(policy, [2], 10)
    assert [seen.committed for seen in policy.seen] == [None] * len(policy.seen)
    old, new = np.array([4, 5, 6, 7]), np.array([100, 101, 102, 103])
    weights = prefix_weights(2, 4, 4)
    blended = (weights * old + (1 - weights) * new).tolist()
    np.testing.assert_allclose([action[0] for action in arm.actions[4:]], blended, rtol=1e-6)
    assert arm.firsts[6:8] == [4, 5]


class Ramp(Numbered):
    """Row i for step s is s + i: the same plan in every answer."""

    def infer(self, observation: Observation) -> ActionChunk:
        rows = observation.step + np.arange(self.spec.horizon, dtype=np.float32)
        return ActionChunk(np.repeat(rows[:, None], 3, axis=1), self.spec.period)


@pytest.mark.parametrize("inpaints", [True, False])
@pytest.mark.parametrize("execute", [1, 4, 8])
@pytest.mark.parametrize("delay", [0, 1, 2, 3, 4])
def test_there_is_no_gap_between_chunks_up_to_half_a_chunk_of_latency(inpaints: bool, execute: int, delay: int) -> None:
    arm, report = run(Ramp(spec(inpaints)), [delay], 50, execute)
    first_stop = 0 if execute < 8 or delay == 0 else delay
    assert report.holds <= delay + first_stop
    np.testing.assert_allclose([action[0] for action in arm.actions], range(report.actions))


@pytest.mark.parametrize("delay", [5, 7, 12])
def test_more_latency_than_half_a_chunk_makes_the_robot_hold_and_loses_no_action(delay: int) -> None:
    arm, report = run(Ramp(spec(inpaints=True)), [delay], 100)
    assert report.holds > delay
    np.testing.assert_array_equal([action[0] for action in arm.actions], range(report.actions))


def test_committed_actions_travel_over_the_wire() -> None:
    policy = Numbered(spec(inpaints=True))
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    seen = Observation({}, "lift", np.zeros(2, np.float32), committed=rows, frozen=1)
    with PolicyServer(policy) as server, RemotePolicy(server.endpoint, timeout=20.0) as remote:
        assert remote.spec == policy.spec
        remote.infer(seen)
    (got,) = policy.seen
    assert got.committed is not None
    np.testing.assert_array_equal(got.committed, rows)
    assert got.frozen == 1


def test_a_served_policy_that_cannot_inpaint_is_not_sent_committed_actions() -> None:
    policy = Numbered(spec(inpaints=False))
    seen = Observation({}, "lift", np.zeros(2, np.float32), committed=np.zeros((1, 3), np.float32))
    with (
        PolicyServer(policy) as server,
        RemotePolicy(server.endpoint, timeout=20.0) as remote,
        pytest.raises(InputError, match="cannot continue committed actions"),
    ):
        remote.infer(seen)


def test_more_frozen_rows_than_committed_ones_are_refused() -> None:
    with pytest.raises(InputError, match=r"frozen must be at most the 1 committed row\(s\), got 2"):
        Observation({}, "lift", committed=np.zeros((1, 3), np.float32), frozen=2)
    with pytest.raises(InputError, match=r"at most the 0 committed row\(s\), got 1"):
        Observation({}, "lift", frozen=1)


def test_impossible_settings_are_refused() -> None:
    for settings in ({"execute": 0}, {"execute": 1, "window": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            RealTimeChunking(**settings)
