"""What the shared vocabulary refuses, and what it makes of numpy's numbers."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vla.api import ActionChunk, Camera, InputError, Observation, PolicySpec, Quantity

IMAGE = np.zeros((2, 3, 3), np.uint8)
SPEC = PolicySpec((Camera("front", 2, 3),), (Quantity("x", "m"),), (Quantity("dx", "m"),), 4, 0.2, "model")


def seen(**changes: Any) -> Observation:
    return Observation(**{"images": {"front": IMAGE}, "instruction": "wait", **changes})


@pytest.mark.parametrize("step", [3, np.int64(3), np.uint8(3), np.int32(3)])
@pytest.mark.parametrize("time", [2, 2.0, np.float32(2), np.int16(2), np.float64(2)])
def test_an_observation_s_numbers_are_plain(step: Any, time: Any) -> None:
    observation = seen(step=step, time=time)
    assert json.dumps([observation.step, observation.time]) == "[3, 2.0]"


def test_a_spec_s_and_a_chunk_s_numbers_are_plain() -> None:
    camera = Camera("front", np.int64(2), np.int32(3))  # type: ignore[arg-type]
    spec: Any = replace(SPEC, cameras=[camera], horizon=np.int64(4), period=np.float64(0.2))
    assert spec == SPEC
    assert hash(spec) == hash(SPEC)
    chunk = ActionChunk(np.zeros((1, 1), np.float32), np.float32(0.5))  # type: ignore[arg-type]
    assert json.dumps([spec.horizon, spec.period, camera.height, chunk.period]) == "[4, 0.2, 2, 0.5]"


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a step in words": (lambda: seen(step="a"), "step must be a whole number of at least 0, got 'a'"),
    "a fractional step": (lambda: seen(step=1.0), "step must be a whole number"),
    "a step before the first": (lambda: seen(step=-1), "at least 0, got -1"),
    "a truth value for a step": (lambda: seen(step=True), "got True"),
    "a step beyond 64 bits": (lambda: seen(step=10**5000), "step must be"),
    "a time that is none": (lambda: seen(time=float("nan")), "time must be a finite number, got nan"),
    "an endless time": (lambda: seen(time=np.float32("inf")), "time must be a finite number"),
    "a time beyond every float": (lambda: seen(time=10**5000), "time must be a finite number"),
    "a time in words": (lambda: seen(time="now"), "got 'now'"),
    "a numbered session": (lambda: seen(session=3), "session must be text, got int"),
    "a numbered instruction": (lambda: seen(instruction=3), "instruction must be text, got int"),
    "an endless period": (lambda: replace(SPEC, period=float("inf")), "period must be a finite number"),
    "a period of nothing": (lambda: replace(SPEC, period=0), "period must be positive seconds, got 0"),
    "a chunk without a period": (lambda: ActionChunk(np.zeros((1, 1), np.float32), -1.0), "period must be positive"),
    "no horizon": (lambda: replace(SPEC, horizon=0), "horizon must be a whole number of at least 1, got 0"),
    "a numbered model": (lambda: replace(SPEC, model=None), "model must be text, got NoneType"),
    "a camera twice": (lambda: replace(SPEC, cameras=SPEC.cameras * 2), "cameras must be unique, got 'front' more"),
    "a state twice": (lambda: replace(SPEC, state=SPEC.state * 2), "state must be unique, got 'x'"),
    "an action twice": (lambda: replace(SPEC, actions=SPEC.actions * 2), "actions must be unique, got 'dx'"),
    "a flat camera": (lambda: Camera("front", 0, 3), "height of camera 'front' must be .* at least 1, got 0"),
    "a fractional camera": (lambda: Camera("front", 2, 2.5), "width of camera 'front'"),  # type: ignore[arg-type]
    "a nameless camera": (lambda: Camera(None, 2, 3), "a camera's name must be text"),  # type: ignore[arg-type]
    "a nameless quantity": (lambda: Quantity(1, "m"), "a quantity's name must be text"),  # type: ignore[arg-type]
    "a numbered unit": (lambda: Quantity("x", 1), "the unit of 'x' must be text"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_means_nothing_is_refused(name: str) -> None:
    build, complaint = REFUSED[name]
    with pytest.raises(InputError, match=complaint):
        build()
