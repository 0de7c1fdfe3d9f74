"""Laws of processing: units survive the way to the model and back, and a damaged description is refused."""

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.vla.small import CAMERA, PROCESSING, observation
from vla.api import InputError, Observation
from vla.processing import Processing, Range

UNIT = st.floats(-1, 1, width=32)
ANY = st.floats(-1e6, 1e6, width=32)


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """PROCESSING as JSON reads it, with one value replaced."""
    values = json.loads(json.dumps(PROCESSING.to_dict()))
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return values


def test_what_was_written_before_a_field_existed_means_the_same() -> None:
    assert not {"resize", "rotation", "command_threshold"} & set(PROCESSING.to_dict())


def test_a_command_is_one_from_the_threshold_on() -> None:
    changed_at = replace(PROCESSING, command_threshold=0.5)
    sampled = np.array([[0, 0, 0.49], [0, 0, 0.5]], np.float32)
    assert changed_at.physical_actions(sampled)[:, 2].tolist() == [-1, 1]


def test_json_gives_back_the_same_processing() -> None:
    assert Processing.from_dict(json.loads(json.dumps(PROCESSING.to_dict()))) == PROCESSING


@pytest.mark.parametrize("key", sorted(PROCESSING.to_dict()))
def test_a_missing_key_is_named(key: str) -> None:
    values = PROCESSING.to_dict()
    del values[key]
    with pytest.raises(InputError, match=key):
        Processing.from_dict(values)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(InputError, match="colour"):
        Processing.from_dict(PROCESSING.to_dict() | {"colour": 1})


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("period",), 0, "period"),
        (("period",), "0.2", "period"),
        (("prompt",), "do it", "instruction"),
        (("prompt",), 3, "instruction"),
        (("image_std",), [0.5, 0.0, 0.5], "image_std"),
        (("image_mean",), [0.5, 0.5], "image_mean"),
        (("image_mean",), 0.5, "image_mean"),
        (("cameras",), "front", "cameras"),
        (("cameras", 0, "height"), "32", "height"),
        (("cameras", 0, "width"), 0, "width"),
        (("actions", 0), "dx", "Quantity"),
        (("state",), [], "state"),
        (("action_range",), None, "Range"),
        (("action_range", "q01"), [0.0, None, 0.0], "action_range: q01"),
        (("action_range", "q99"), [float("nan")] * 3, "action_range: q99"),
        (("action_range", "q01"), [1.0, 1.0, -1.0], "action_range: q99 must be above q01"),
        (("action_range", "mask"), [1, 1, 0], "action_range: mask"),
        (("state_range", "mask"), [True], "state_range"),
        (("resize",), {"size": 224}, "Resize: .*strategy"),
        (("resize",), {"size": 224, "strategy": "squeeze"}, "squeeze"),
        (("rotation",), "euler", "rotation must be .*at least 6"),
        (("rotation",), "quaternion", "quaternion"),
        (("command_threshold",), "half", "command_threshold"),
        (("image_mean",), [0.5] * 6, "image_std must be 6"),
    ],
)
def test_a_wrong_value_is_named(path: tuple[Any, ...], value: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Processing.from_dict(changed(path, value))


@given(arrays.arrays(np.float32, (4, 3), elements=UNIT))
def test_normalising_inverts_unnormalising(normalised: np.ndarray) -> None:
    values = PROCESSING.action_range
    np.testing.assert_allclose(values.normalise(values.unnormalise(normalised)), normalised, atol=1e-5)


@given(arrays.arrays(np.float32, (4, 3), elements=ANY))
def test_actions_stay_within_what_was_demonstrated(sampled: np.ndarray) -> None:
    actions = PROCESSING.physical_actions(sampled)
    assert isinstance(PROCESSING.action_range, Range)
    low, high = np.array(PROCESSING.action_range.q01), np.array(PROCESSING.action_range.q99)
    assert actions.dtype == np.float32
    assert (actions >= low - 1e-6).all()
    assert (actions <= high + 1e-6).all()


@given(arrays.arrays(np.float32, (4, 3), elements=ANY))
def test_the_gripper_is_opened_or_closed_and_nothing_between(sampled: np.ndarray) -> None:
    gripper = PROCESSING.physical_actions(sampled)[:, 2]
    np.testing.assert_array_equal(gripper, np.where(sampled[:, 2] >= 0, 1, -1))


def test_a_number_that_never_changes_comes_back_as_itself() -> None:
    values = Range((0.25,), (0.25,), (True,))
    assert values.normalise(np.array([0.25], np.float32)).tolist() == [-1]
    assert values.unnormalise(np.array([-1.0, 0.3, 1.0], np.float32)[:, None]).tolist() == [[0.25]] * 3


def test_the_published_formula() -> None:
    """CogACT's 0.5 (a + 1) (q99 - q01) + q01, where the mask is set."""
    values = Range((-0.02872725307941437,), (0.028309678435325586,), (True,))
    expected = 0.5 * (0.3 + 1) * (0.028309678435325586 + 0.02872725307941437) - 0.02872725307941437
    np.testing.assert_allclose(values.unnormalise(np.array([0.3], np.float32)), [expected], rtol=1e-6)


def test_images_are_channels_first_and_normalised() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    image[3, 5] = (255, 51, 0)
    tensor = PROCESSING.images(Observation({CAMERA: image}, "go", np.zeros(2, np.float32)))
    assert tensor.shape == (1, 1, 3, 32, 32)
    torch.testing.assert_close(tensor[0, 0, :, 3, 5], torch.tensor([1.0, (0.2 - 0.5) / 0.25, -1.0]))


@pytest.mark.parametrize("towers", [1, 2])
def test_a_policy_sees_the_colours_that_it_saw_in_training(towers: int) -> None:
    processing = replace(PROCESSING, image_mean=(0.1, 0.2, 0.3) * towers, image_std=(0.4, 0.5, 0.6) * towers)
    images = torch.randint(256, (2, 1, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    trained = processing.normalise_colours(images.movedim(-1, -3).float())
    assert torch.equal(processing.normalise_images(images), trained)


def test_a_read_only_image_is_as_good_as_any() -> None:
    seen = observation()
    frozen = copy.deepcopy(seen.images[CAMERA])
    frozen.setflags(write=False)
    other = Observation({CAMERA: frozen}, seen.instruction, seen.state)
    torch.testing.assert_close(PROCESSING.images(other), PROCESSING.images(seen), rtol=0, atol=0)


def test_an_instruction_is_read_without_case_and_braces_are_letters() -> None:
    text = "In: What action should the robot take to open {x}?\nOut:"
    assert PROCESSING.text(" Open {X} ") == text
