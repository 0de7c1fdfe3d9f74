"""The diffusion head equals CogACT's, and its sampler and loss keep their laws."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vla.api import InputError
from vla.models.heads.diffusion import DiffusionHead, squared_cosine_levels, timesteps_for

GOLDEN = Path(__file__).parents[1] / "data" / "cogact_head_golden.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN).items()}


@pytest.fixture(scope="module")
def published(golden: dict[str, Tensor]) -> DiffusionHead:
    head = DiffusionHead(action_dim=7, horizon=16, condition_dim=4096, width=64, depth=2, heads=4)
    head.load_state_dict({name: array for name, array in golden.items() if name.startswith("net.")})
    return head


def small(prediction: str = "epsilon") -> DiffusionHead:
    torch.manual_seed(0)
    head = DiffusionHead(action_dim=3, horizon=4, condition_dim=8, width=16, depth=1, heads=2, prediction=prediction)
    nn.init.normal_(head.net.final_layer.linear.weight, std=0.3)
    return head


def assert_close(got: Tensor, expected: Tensor) -> None:
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_network_equals_the_published_one(published: DiffusionHead, golden: dict[str, Tensor]) -> None:
    assert_close(published.net(golden["noise"], torch.tensor([50]), golden["z"][:, 0]), golden["epsilon_t50"])


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize(("scale", "name"), [(1.0, "no_guidance"), (1.5, "guidance1.5")])
def test_sampler_equals_the_published_one(
    published: DiffusionHead, golden: dict[str, Tensor], steps: int, scale: float, name: str
) -> None:
    got = published.sample(golden["z"][:, 0], golden["noise"], steps, scale)
    assert_close(got, golden[f"ddim{steps}_{name}"])


def test_ten_steps_visit_every_tenth_timestep_down_to_zero() -> None:
    assert timesteps_for(10, 100) == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert timesteps_for(100, 100) == list(range(99, -1, -1))
    assert timesteps_for(1, 100) == [50]


@pytest.mark.parametrize("steps", [0, -1, 30, 101])
def test_steps_without_an_equal_stride_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match=f"{steps} denoising steps.*allowed"):
        timesteps_for(steps, 100)


def test_noise_levels_fall_from_almost_clean_to_almost_noise() -> None:
    levels = squared_cosine_levels(100)
    assert levels[0] > 0.999
    assert levels[-1] < 1e-5
    assert all(after < before for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_a_perfect_predictor_is_denoised_to_its_chunk(prediction: str) -> None:
    head = small(prediction)
    clean, noise = torch.rand(2, 4, 3) * 2 - 1, torch.randn(2, 4, 3)

    class Oracle(nn.Module):
        def forward(self, actions: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
            level = head.noise_levels[int(timesteps[0])]
            left = (actions - math.sqrt(level) * clean) / math.sqrt(1 - level)
            return left if prediction == "epsilon" else clean

    level = head.noise_levels[90]
    head.net = Oracle()  # type: ignore[assignment]
    noisy = math.sqrt(level) * clean + math.sqrt(1 - level) * noise
    torch.testing.assert_close(head.sample(torch.zeros(2, 8), noisy, 10, 1.0), clean, atol=1e-5, rtol=0)


def test_guidance_moves_along_the_difference_of_the_two_predictions() -> None:
    head = small()
    actions, condition = torch.randn(3, 4, 3), torch.randn(3, 8)
    timesteps = torch.full((3,), 40)
    with torch.no_grad():
        conditioned = head.net(actions, timesteps, condition)
        unconditioned = head.net(actions, timesteps, head.net.z_embedder.uncondition.expand(3, -1))
        for scale in (1.0, 1.5, 0.0):
            expected = unconditioned + scale * (conditioned - unconditioned)
            torch.testing.assert_close(head.predict(actions, 40, condition, scale), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_loss_depends_on_the_generator_alone(prediction: str) -> None:
    head = small(prediction)
    condition, actions = torch.randn(5, 8), torch.rand(5, 4, 3)
    losses = [head.loss(condition, actions, 4, torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_a_dropped_condition_cannot_be_seen() -> None:
    head = small()
    actions = torch.rand(2, 4, 3)
    losses = [
        head.loss(torch.full((2, 8), value), actions, 2, torch.Generator().manual_seed(0), drop_condition=1.0).item()
        for value in (0.0, 5.0)
    ]
    assert losses[0] == losses[1]


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(InputError, match="velocity"):
        small("velocity")


def test_casting_the_weights_leaves_the_noise_schedule_exact() -> None:
    assert small().bfloat16().noise_levels == squared_cosine_levels(100)
