"""Limits: what passes is unchanged, what does not becomes the nearest command that is allowed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_server.robot import Limits, Speed
from vla.api import InputError

PERIOD = 0.1
INF = math.inf
LIMITS = Limits(
    relative=[True, True, True, False],
    step=[0.05, 0.05, 0.05, 0.5],
    low=[-0.3, -0.3, 0.0, -1.0],
    high=[0.3, 0.3, 0.4, 1.0],
    speeds=(Speed((0, 1, 2), 0.6),),
)
NUMBERS = st.floats(-2, 2, width=32)
VECTORS = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS).map(lambda values: np.array(values, np.float32))


def target(limited: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.where(LIMITS.relative, reference + limited, limited)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(VECTORS, VECTORS)
def test_no_command_leaves_the_limits(action: np.ndarray, reference: np.ndarray) -> None:
    limited, reasons = LIMITS.apply(action, reference, PERIOD)
    change = target(limited, reference) - reference
    assert limited.dtype == np.float32
    assert (np.abs(change) <= np.array(LIMITS.step) + 1e-5).all()
    assert np.linalg.norm(change[:3]) <= 0.06 + 1e-5
    outside_before = np.maximum(np.subtract(LIMITS.low, reference), np.subtract(reference, LIMITS.high))
    there = target(limited, reference)
    outside = np.maximum(np.subtract(LIMITS.low, there), np.subtract(there, LIMITS.high))
    assert (outside <= np.maximum(outside_before, 0) + 1e-5).all()
    assert bool(reasons) == (limited.tobytes() != action.tobytes())


def test_a_command_within_the_limits_is_unchanged_to_the_bit() -> None:
    action = np.array([0.03, -0.01, 1e-9, -1.0], np.float32)
    limited, reasons = LIMITS.apply(action, np.array([0.1, 0.1, 0.1, -0.7]), PERIOD)
    assert (limited.tobytes(), reasons) == (action.tobytes(), ())


def test_a_limit_reached_exactly_is_not_exceeded() -> None:
    action = np.array([0.05, 0.0, 0.0, 0.0], np.float32)  # as float32 a little more than 0.05
    assert LIMITS.apply(action, np.zeros(4), PERIOD)[1] == ()


def test_what_is_too_fast_keeps_its_direction() -> None:
    action = np.array([0.04, 0.05, 0.03, 0.2], np.float32)
    limited, reasons = LIMITS.apply(action, np.full(4, 0.1), PERIOD)
    np.testing.assert_allclose(limited[:3], action[:3] * 0.06 / np.linalg.norm(action[:3]), rtol=1e-5)
    assert (limited[3], reasons) == (action[3], ("speed",))


def test_every_limit_that_was_taken_is_named() -> None:
    _, reasons = LIMITS.apply(np.array([1.0, 0.05, 0.05, 3.0], np.float32), np.array([0.2, 0, 0, 0]), PERIOD)
    assert reasons == ("workspace", "step", "speed")


def test_a_robot_outside_its_workspace_is_not_pushed_and_may_come_back() -> None:
    outside = np.array([0.5, 0.0, 0.1, 0.0])
    stay, back, on = (np.array([dx, 0, 0, 0], np.float32) for dx in (0.0, -0.04, 0.04))
    assert LIMITS.apply(stay, outside, PERIOD)[1] == ()
    assert LIMITS.apply(back, outside, PERIOD)[1] == ()
    limited, reasons = LIMITS.apply(on, outside, PERIOD)
    assert (limited[0], reasons) == (0.0, ("workspace",))


def test_positions_are_needed_where_there_are_limits_only() -> None:
    action = np.ones(4, np.float32)
    with pytest.raises(InputError, match=r"position in columns \[0, 1, 2, 3\], it is \[nan"):
        LIMITS.apply(action, np.full(4, np.nan), PERIOD)
    limited, reasons = Limits.none([True, True, True, False]).apply(action, np.full(4, np.nan), PERIOD)
    assert (limited.tobytes(), reasons) == (action.tobytes(), ())


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(InputError, match=r"one entry for each column, got \[1, 2, 1, 1\]"):
        Limits([True], [1, 1], [0], [1])
    with pytest.raises(InputError, match="steps must be positive"):
        Limits([True], [0], [0], [1])
    with pytest.raises(InputError, match="low must be below high"):
        Limits([True], [1], [1], [1])
    with pytest.raises(InputError, match=r"columns \[3\], an action has 1"):
        Limits([True], [1], [0], [1], speeds=(Speed((3,), 1.0),))
    with pytest.raises(InputError, match="speed limit must be positive, got nan"):
        Speed((0,), math.nan)
