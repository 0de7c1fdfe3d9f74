"""A robot without PyTorch makes images square exactly as the policy does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_server.client import shrunk
from tests.vla.small import CAMERA, INSTRUCTION, PROCESSING, TOKENIZER, small_model
from vla import images
from vla import recipe as recipes
from vla.api import Camera, InputError, Observation
from vla.checkpoints.checkpoint import Checkpoint
from vla.images import LETTERBOX, Resize
from vla.policy import VlaPolicy
from vla.resampling import STRATEGIES, resized, square

SIZES = [(480, 640), (512, 640), (224, 224), (100, 37), (3, 500), (180, 320), (1, 1)]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_the_policy(image: np.ndarray, strategy: str, side: int) -> np.ndarray:
    channels_first = torch.from_numpy(image).movedim(-1, 0)
    return images.Resize(side, strategy)(channels_first, (0, 0, 0)).movedim(0, -1).numpy()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_is_the_policy_s(size: tuple[int, int], strategy: str) -> None:
    image = noise(*size)
    np.testing.assert_array_equal(square(image, strategy, 224), as_the_policy(image, strategy, 224))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_every_size_is_resized_as_the_policy_does(height: int, width: int, side: int, seed: int) -> None:
    image = noise(height, width, seed)
    np.testing.assert_array_equal(square(image, STRATEGIES[0], side), as_the_policy(image, STRATEGIES[0], side))


def test_edges_that_overshoot_are_clipped() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::8] = stripes[:, ::8] = 255
    np.testing.assert_array_equal(square(stripes, STRATEGIES[0], 100), as_the_policy(stripes, STRATEGIES[0], 100))


def test_what_has_the_size_already_is_left_alone() -> None:
    image = noise(20, 20)
    assert resized(image, 20, 20) is image
    for strategy in STRATEGIES:
        np.testing.assert_array_equal(
            square(square(noise(48, 64), strategy, 20), strategy, 20), square(noise(48, 64), strategy, 20)
        )


def test_a_strategy_s_name_is_the_policy_s() -> None:
    assert set(STRATEGIES) < set(images.STRATEGIES)


def test_another_strategy_is_refused() -> None:
    with pytest.raises(InputError, match=r"strategy must be one of \['resize-naive', 'resize-crop'\], got 'letterbox'"):
        square(noise(2, 2), "letterbox", 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_policy_acts_the_same_bit_for_bit_on_what_the_sender_resized(strategy: str) -> None:
    policy = policy_of(Resize(32, strategy))
    assert policy.spec.resize == (strategy, 32)
    seen = Observation({CAMERA: noise(48, 64)}, INSTRUCTION, np.zeros(2, np.float32))
    small = shrunk(seen, policy.spec)
    assert small.images[CAMERA].shape == (32, 32, 3)
    np.testing.assert_array_equal(policy.infer(small).actions, policy.infer(seen).actions)


def test_borders_are_left_to_the_policy() -> None:
    assert policy_of(Resize(32, LETTERBOX)).spec.resize is None
    assert policy_of(None).spec.resize is None


def policy_of(resize: Resize | None) -> VlaPolicy:
    camera = Camera(CAMERA, 48, 64) if resize else Camera(CAMERA, 32, 32)
    processing = replace(PROCESSING, cameras=(camera,), resize=resize)
    checkpoint = Checkpoint(small_model(), processing, TOKENIZER, {})
    return VlaPolicy(checkpoint, recipes.find("none"), "small", "", torch.device("cpu"), torch.float32)
