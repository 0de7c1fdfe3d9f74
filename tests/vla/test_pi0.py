"""pi0 computes what transformers' own PI0 computes, reads images as its two codes do, and keeps its laws."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PI0ForConditionalGeneration

from tests.vla.pi0_published import CONFIG, our_names, reference, sampled
from vla.api import InputError, Observation
from vla.checkpoints.weights import empty, fill, randomise
from vla.images import BORDER_AFTER, BORDER_AROUND, Resize
from vla.models.heads.flow import euler
from vla.models.pi0 import FAMILY, Pi0, Prefilled
from vla.models.pi0_config import Pi0Config
from vla.moments import Moments, between
from vla.policy import load_policy

DATA = Path(__file__).parents[1] / "data"
IMAGES = DATA / "pi0_images.npz"  # what transformers' PI0ImageProcessor and LeRobot made of four images
ACTIONS = DATA / "pi0_actions.npz"  # what LeRobot's PI0Pytorch sampled with the reference's weights
PROMPT = torch.tensor([[9, 8, 7, 6, 99], [20, 21, 99, 0, 0]])
NUMBERS = st.floats(-100, 100, width=32)


@pytest.fixture(scope="module")
def published() -> PI0ForConditionalGeneration:
    return reference()


@pytest.fixture(scope="module")
def model(published: PI0ForConditionalGeneration) -> Pi0:
    filled = fill(empty(FAMILY, CONFIG), our_names(published))
    assert isinstance(filled, Pi0)
    return filled


def inputs(cameras: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Images, states and noise of two robots."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, cameras, 3, 28, 28, generator=generator) * 2 - 1
    state = torch.randn(2, CONFIG.state_dim, generator=generator)
    return images, state, torch.randn(2, CONFIG.horizon, CONFIG.action_width, generator=generator)


@torch.no_grad()
def prefilled(model: Pi0, images: Tensor, prompt: Tensor, state: Tensor | None) -> Prefilled:
    return model.prefill(model.encode(images), prompt, state)


def test_the_same_noise_gives_the_same_actions_as_transformers_own_sampler(
    published: PI0ForConditionalGeneration, model: Pi0
) -> None:
    images, state, noise = inputs()
    actions = model.sample(prefilled(model, images, PROMPT, state), noise, 10)
    expected = sampled(published, images, PROMPT, state, noise)
    assert actions.shape == (2, CONFIG.horizon, CONFIG.action_dim)
    assert (expected - noise).abs().max() > 0.5  # the flow does go somewhere
    torch.testing.assert_close(actions, expected[..., : CONFIG.action_dim], rtol=0, atol=1e-5)


def test_actions_are_those_of_lerobot_s_own_code(model: Pi0) -> None:
    """It had a third camera whose image was empty and masked, and a prompt padded to 48 words."""
    with np.load(ACTIONS) as arrays:
        golden = {name: torch.from_numpy(array) for name, array in arrays.items()}
    condition = prefilled(model, golden["images"].float() / 255 * 2 - 1, golden["prompt"], golden["state"])
    actions = model.sample(condition, golden["noise"], 10)
    torch.testing.assert_close(actions, golden["actions"][..., : CONFIG.action_dim], rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_camera_that_is_left_out_is_as_good_as_one_that_is_masked(
    published: PI0ForConditionalGeneration, model: Pi0
) -> None:
    """LeRobot and openpi feed a black image for it and mask its tokens, which then count as no position."""
    images, state, noise = inputs()
    black = torch.cat([images, torch.full_like(images[:, :1], -1)], dim=1)
    expected = sampled(published, black, PROMPT, state, noise, masked=1)
    actions = model.sample(prefilled(model, images, PROMPT, state), noise, 10)
    torch.testing.assert_close(actions, expected[..., : CONFIG.action_dim], rtol=0, atol=1e-5)


def test_padding_changes_nothing_wherever_it_stands(model: Pi0) -> None:
    images, state, noise = (each[:1] for each in inputs())
    alone = model.sample(prefilled(model, images, torch.tensor([[9, 8, 7]]), state), noise, 3)
    for padded in ([0, 0, 9, 8, 7], [9, 8, 7, 0, 0], [9, 0, 8, 7, 0]):
        together = model.sample(prefilled(model, images, torch.tensor([padded]), state), noise, 3)
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_robot_is_answered_the_same_alone_and_in_company(model: Pi0) -> None:
    images, state, noise = inputs()
    together = model.sample(prefilled(model, images, PROMPT, state), noise, 3)
    for robot in range(2):
        of_one = slice(robot, robot + 1)
        alone = model.sample(prefilled(model, images[of_one], PROMPT[of_one], state[of_one]), noise[of_one], 3)
        torch.testing.assert_close(together[of_one], alone, atol=1e-5, rtol=1e-5)


def test_sampling_leaves_what_it_is_conditioned_on_as_it_was(model: Pi0) -> None:
    images, state, noise = inputs()
    condition = prefilled(model, images, PROMPT, state)
    length = condition.cache.get_seq_length()
    first = model.sample(condition, noise, 3)
    assert condition.cache.get_seq_length() == length == 2 * CONFIG.visual_tokens + 1 + PROMPT.shape[1]
    assert torch.equal(model.sample(condition, noise, 3), first)


def test_everything_the_robot_says_reaches_the_actions(model: Pi0) -> None:
    images, state, noise = inputs()
    usual = model.sample(prefilled(model, images, PROMPT, state), noise, 2)
    changed = images.clone()
    changed[:, 1] *= -1
    for other in (
        (changed, PROMPT, state),
        (images.flip(1), PROMPT, state),
        (images, torch.where(PROMPT == 9, 10, PROMPT), state),
    ):
        assert (model.sample(prefilled(model, *other), noise, 2) - usual).abs().max() > 1e-4
    assert (model.sample(prefilled(model, images, PROMPT, state + 1), noise, 2) - usual).abs().max() > 1e-4
    assert (model.sample(prefilled(model, images, PROMPT, state), noise + 1, 2) - usual).abs().max() > 1e-4


def test_a_state_is_asked_for_only_by_a_model_that_reads_one(model: Pi0) -> None:
    images, _, noise = inputs()
    with pytest.raises(InputError, match="state of 3 numbers"):
        prefilled(model, images, PROMPT, None)
    blind = fill(empty(FAMILY, replace(CONFIG, state_dim=0)), model.state_dict())
    assert isinstance(blind, Pi0)
    assert blind.sample(prefilled(blind, images, PROMPT, None), noise, 1).isfinite().all()


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_euler_visits_equal_times_from_noise_on(steps: int) -> None:
    visited: list[float] = []

    def velocity(actions: Tensor, time: Tensor) -> Tensor:
        visited.append(time[0].item())
        return torch.full_like(actions, 2.0)

    walked = euler(velocity, torch.ones(1, 2, 3), steps)
    torch.testing.assert_close(walked, torch.full((1, 2, 3), -1.0))
    np.testing.assert_allclose(visited, np.linspace(1, 0, steps, endpoint=False), atol=1e-6)


def test_published_numbers_of_parameters() -> None:
    """PaliGemma's 2.9 B and the 311 M that openpi says of its expert; nothing reads the expert's word embeddings."""
    model = empty(FAMILY, FAMILY.presets["pi0"])
    assert isinstance(model, Pi0)

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(model.body.vlm) == 2_923_335_408
    assert count(model.body.dit) == 311_464_960
    assert count(model) == 3_238_048_528


def test_bfloat16_leaves_positions_and_times_exact(model: Pi0) -> None:
    cast = randomise(empty(FAMILY, CONFIG), torch.device("cpu"), torch.bfloat16)
    cast.to(torch.bfloat16)
    ours = dict(model.body.named_buffers())
    for name, buffer in cast.get_submodule("body").named_buffers():
        assert torch.equal(buffer, ours[name]), name
    assert {parameter.dtype for parameter in cast.parameters()} == {torch.bfloat16}


def test_random_weights_give_finite_actions() -> None:
    images, state, noise = inputs()
    made = randomise(empty(FAMILY, CONFIG), torch.device("cpu"), torch.bfloat16)
    assert isinstance(made, Pi0)
    assert {parameter.dtype for parameter in made.head.parameters()} == {torch.float32}
    actions = made.sample(prefilled(made, images.bfloat16(), PROMPT, state), noise, 2)
    assert actions.dtype == torch.float32
    assert actions.isfinite().all()


def test_config_survives_a_round_trip() -> None:
    assert Pi0Config.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"patch_size": 15}, "patch_size"),
        ({"vision_heads": 5}, "vision_heads"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"expert_width": 15}, "expert_width"),
        ({"horizon": 0}, "horizon"),
        ({"depth": 2.5}, "depth"),
        ({"state_dim": 11}, "state_dim must be at most state_width"),
        ({"action_dim": 10}, "action_dim must be at most action_width"),
        ({"vocabulary": 2}, "vocabulary"),
        ({"shortest_period": 5.0}, "shortest_period"),
        ({"longest_period": 4}, "longest_period"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_configs_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Pi0Config.from_dict(CONFIG.to_dict() | change)


@pytest.mark.parametrize("image", ["wide", "tall", "square", "small"])
@pytest.mark.parametrize(("strategy", "made"), [(BORDER_AFTER, "after"), (BORDER_AROUND, "around")])
def test_images_become_what_published_code_makes_of_them(image: str, strategy: str, made: str) -> None:
    with np.load(IMAGES) as golden:
        view, expected = torch.from_numpy(golden[f"{image}_image"]), golden[f"{image}_{made}"]
    pixels = Resize(28, strategy)(view.movedim(-1, 0), (0, 0, 0))
    assert pixels.shape == (3, 28, 28)
    np.testing.assert_allclose((pixels.float() / 255 - 0.5) / 0.5, expected, atol=1e-6)


@given(st.lists(NUMBERS, min_size=3, max_size=3))
def test_moments_are_inverted(values: list[float]) -> None:
    moments = Moments((1.0, -2.0, 0.5), (0.5, 10.0, 2.0), (True, True, False))
    physical = np.array(values, np.float32)
    np.testing.assert_allclose(moments.unnormalise(moments.normalise(physical)), physical, rtol=1e-4, atol=1e-4)
    assert moments.normalise(physical)[2] == physical[2]


def test_moments_of_bounds_map_them_to_one() -> None:
    moments = between([0.0, -3.0], [1.0, 5.0])
    np.testing.assert_allclose(
        moments.normalise(np.array([[0, -3], [1, 5]], np.float32)), [[-1, -1], [1, 1]], atol=1e-6
    )
    np.testing.assert_allclose(moments.unnormalise(np.array([3, 0], np.float32)), [2, 1])  # nothing is clipped


def test_a_number_that_never_changed_is_not_divided_by_zero() -> None:
    assert Moments((2.0,), (0.0,), (True,)).normalise(np.array([2.0], np.float32)) == 0


@pytest.mark.parametrize(
    ("mean", "std", "mask", "named"),
    [
        ((0.0,), (1.0, 1.0), (True,), "differ in length"),
        ((float("nan"),), (1.0,), (True,), "mean"),
        ((0.0,), (-1.0,), (True,), "std must be at least 0"),
        ((0.0,), (1.0,), (1,), "mask"),
    ],
)
def test_wrong_moments_are_refused(mean: Any, std: Any, mask: Any, named: str) -> None:
    with pytest.raises(InputError, match=named):
        Moments(mean, std, mask)


def test_a_preset_answers_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILY.presets, "pi0_nano", replace(CONFIG, vocabulary=1024))
    policy = load_policy("pi0_nano", init="random", dtype="bfloat16")
    views = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in policy.spec.cameras}
    chunk = policy.infer(Observation(views, "put the spoon on the towel", np.zeros(3, np.float32)))
    assert len(views) == CONFIG.cameras
    assert chunk.actions.shape == (CONFIG.horizon, 7)
    assert {"encode", "prefill", "head", "total"} == set(chunk.timing)
