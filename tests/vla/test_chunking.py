"""Chunks to actions: which row is executed when, and when the policy is asked."""

import numpy as np
import pytest

from vla.api import ActionChunk, InputError, Quantity
from vla.averaging import Averaging
from vla.chunking import AdaptiveEnsemble, Chunking, OpenLoop, RealTimeChunking
from vla.embodiments import ACTIONS
from vla.rotations import rotation_vector


def chunk(first: float, rows: int = 8) -> ActionChunk:
    """Row i holds (first + i, 1)."""
    return ActionChunk(np.stack([np.arange(rows) + first, np.ones(rows)], axis=1).astype(np.float32), period=0.2)


def run(chunking: Chunking, steps: int) -> tuple[list[int], list[float]]:
    """Steps at which the policy was asked, and the executed first columns; the policy answers chunk(100 * step)."""
    asked, executed = [], []
    for step in range(steps):
        if chunking.needs_chunk(step):
            asked.append(step)
            chunking.add(step, chunk(100.0 * step))
        executed.append(float(chunking.action(step)[0]))
    return asked, executed


def test_open_loop_executes_rows_in_order_then_asks_again() -> None:
    asked, executed = run(OpenLoop(execute=3), 7)
    assert asked == [0, 3, 6]
    assert executed == [0, 1, 2, 300, 301, 302, 600]


def test_open_loop_of_one_row_is_closed_loop() -> None:
    asked, executed = run(OpenLoop(execute=1), 4)
    assert asked == [0, 1, 2, 3]
    assert executed == [0, 100, 200, 300]


@pytest.mark.parametrize("chunking", [OpenLoop(execute=4), AdaptiveEnsemble(horizon=4)])
def test_reset_forgets(chunking: Chunking) -> None:
    first = run(chunking, 6)
    chunking.reset()
    assert chunking.needs_chunk(0)
    assert run(chunking, 6) == first


@pytest.mark.parametrize("chunking", [OpenLoop(execute=8), AdaptiveEnsemble(horizon=8), RealTimeChunking(execute=8)])
def test_short_chunks_are_refused(chunking: Chunking) -> None:
    with pytest.raises(InputError, match="is 8, but the policy's chunks have only 7 rows"):
        chunking.add(0, chunk(0, rows=7))
    with pytest.raises(InputError, match="allowed are 1 to 7"):
        chunking.check(7)
    chunking.check(8)
    chunking.add(0, chunk(0, rows=8))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 row of each chunk, got 0"):
        OpenLoop(execute=0)
    with pytest.raises(InputError, match="at least 1 chunk, got 0"):
        AdaptiveEnsemble(horizon=0)
    with pytest.raises(InputError, match="finite number from 0, got nan"):
        AdaptiveEnsemble(alpha=float("nan"))


def test_an_action_without_its_chunk_is_a_bug() -> None:
    open_loop, ensemble = OpenLoop(execute=2), AdaptiveEnsemble()
    for chunking in (open_loop, ensemble):
        with pytest.raises(AssertionError):
            chunking.action(0)
    open_loop.add(0, chunk(0))
    with pytest.raises(AssertionError):
        open_loop.action(2)


def published_ensemble(chunks: list[np.ndarray], horizon: int, alpha: float) -> np.ndarray:
    """The action after these consecutive chunks, written as CogACT's code does it."""
    history = chunks[-horizon:]
    predictions = np.stack([rows[i] for i, rows in zip(range(len(history) - 1, -1, -1), history, strict=True)])
    newest = predictions[-1]
    norms = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
    weights = np.exp(alpha * np.sum(predictions * newest, axis=1) / (norms + 1e-7))
    weights = weights / weights.sum()
    return np.sum(weights[:, None] * predictions, axis=0)


def test_adaptive_ensemble_equals_the_published_one() -> None:
    random = np.random.default_rng(0)
    chunks = [random.normal(size=(16, 7)).astype(np.float32) for _ in range(12)]
    ensemble = AdaptiveEnsemble(horizon=7, alpha=0.1)
    for step, actions in enumerate(chunks):
        assert ensemble.needs_chunk(step)
        ensemble.add(step, ActionChunk(actions, 0.2))
        expected = published_ensemble([c.astype(np.float64) for c in chunks[: step + 1]], 7, 0.1)
        np.testing.assert_allclose(ensemble.action(step), expected, rtol=1e-6, atol=1e-7)
        assert ensemble.action(step).dtype == np.float32


def test_rotations_and_commands_are_averaged_as_published() -> None:
    """CogACT averages roll, pitch, yaw and a command of 0 or 1, and then converts them (its SIMPLER policy)."""
    random = np.random.default_rng(0)
    ensemble = AdaptiveEnsemble(horizon=7, alpha=0.1, averaging=Averaging.of(ACTIONS))
    said = [random.normal(scale=0.3, size=(16, 7)) for _ in range(12)]
    commands = set()
    for step, actions in enumerate(said):
        actions[:, 6] = random.integers(0, 2, 16)
        ours = np.concatenate([actions[:, :3], rotation_vector(actions[:, 3:6]), 2 * actions[:, 6:] - 1], axis=1)
        ensemble.add(step, ActionChunk(ours.astype(np.float32), 0.2))
        mean = published_ensemble(said[: step + 1], 7, 0.1)
        expected = [*mean[:3], *rotation_vector(mean[3:6]), 2.0 * (mean[6] > 0.5) - 1.0]
        np.testing.assert_allclose(ensemble.action(step), expected, rtol=1e-5, atol=1e-6)
        commands.add(float(ensemble.action(step)[6]))
    assert commands == {-1.0, 1.0}


def test_the_width_of_a_gripper_is_a_plain_number() -> None:
    averaging = Averaging.of((Quantity("x", "m"), Quantity("gripper", "1")))
    ensemble = AdaptiveEnsemble(horizon=2, alpha=0.0, averaging=averaging)
    for step, width in enumerate((0.25, 0.75)):
        ensemble.add(step, ActionChunk(np.full((2, 2), width, np.float32), 0.2))
    np.testing.assert_allclose(ensemble.action(1), [0.5, 0.5])


def test_agreeing_predictions_stay_as_they_are() -> None:
    ensemble = AdaptiveEnsemble(horizon=3, alpha=2.0)
    for step in range(5):
        ensemble.add(step, chunk(float(step)))
        np.testing.assert_allclose(ensemble.action(step), [step, 1], rtol=1e-6)


def test_an_ensemble_of_one_is_the_newest_chunk() -> None:
    assert run(AdaptiveEnsemble(horizon=1), 3) == run(OpenLoop(execute=1), 3)
