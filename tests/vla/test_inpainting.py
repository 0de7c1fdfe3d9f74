"""A chunk that continues committed actions: the frozen rows exactly, the others as the weights say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.vla.family_members import GUIDED, member, robots
from tests.vla.small import PROCESSING, observation, save_small
from vla.api import InputError, Observation
from vla.chunking import prefix_weights
from vla.models.heads.diffusion import DiffusionHead
from vla.models.heads.flow import pulled
from vla.models.pi0 import Pi0, Prefilled
from vla.policy import VlaPolicy, load_policy
from vla.rotations import euler_angles, rotation_vector

HORIZON, COLUMNS = 4, 3


def head_of(prediction: str) -> DiffusionHead:
    torch.manual_seed(0)
    head = DiffusionHead(
        action_dim=COLUMNS, horizon=HORIZON, condition_dim=8, width=16, depth=1, heads=2, prediction=prediction
    )
    nn.init.normal_(head.net.final_layer.linear.weight, std=0.3)
    return head


def column(*weights: float) -> Tensor:
    return torch.tensor(weights, dtype=torch.float32)[None, :, None].expand(2, -1, 1)


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("steps", [1, 5, 10])
@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_rows_of_weight_one_are_kept_exactly_and_weight_zero_is_free(
    prediction: str, steps: int, guidance: float
) -> None:
    head, known = head_of(prediction), torch.rand(2, HORIZON, COLUMNS) * 2 - 1
    condition, noise = torch.randn(2, 8), torch.randn(2, HORIZON, COLUMNS)
    free = head.sample(condition, noise, steps, guidance)
    kept = head.inpaint(condition, noise, steps, guidance, known, column(1, 1, 0, 0))
    assert torch.equal(kept[:, :2], known[:, :2])
    assert (kept[:, 2:] - free[:, 2:]).abs().max() > 1e-4, "what follows must depend on what it continues"
    untouched = head.inpaint(condition, noise, steps, guidance, known, column(0, 0, 0, 0))
    torch.testing.assert_close(untouched, free, atol=2e-3, rtol=1e-3)


def test_a_larger_weight_ends_nearer_to_the_known_row() -> None:
    head, known = head_of("sample"), torch.full((2, HORIZON, COLUMNS), 3.0)
    condition, noise = torch.randn(2, 8), torch.randn(2, HORIZON, COLUMNS)
    distances = [
        (head.inpaint(condition, noise, 10, 1.0, known, column(*[weight] * 4)) - known).abs().mean()
        for weight in (0.0, 0.5, 0.9, 1.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == 0


@pytest.fixture(scope="module")
def flowing() -> VlaPolicy:
    return member("pi0", {**GUIDED, "denoising_steps": 5})


@torch.no_grad()
def flow(policy: VlaPolicy) -> tuple[Pi0, Prefilled, Tensor, Tensor]:
    """A model, what the flow is conditioned on, noise, and a known chunk, of two robots."""
    model = policy.model
    assert isinstance(model, Pi0)
    images, prompts, states = policy.tensors(robots(policy, 2))
    known = torch.rand(2, model.config.horizon, model.config.action_dim, generator=torch.Generator().manual_seed(0))
    noise = policy.noise(robots(policy, 2))
    return model, model.prefill(model.encode(images), prompts, states), noise, 2 * known - 1


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_a_flow_keeps_rows_of_weight_one_exactly_and_leaves_weight_zero_alone(flowing: VlaPolicy, steps: int) -> None:
    model, prefilled, noise, known = flow(flowing)
    assert model.config.action_width > model.config.action_dim, "there are numbers that no robot has"
    free = model.sample(prefilled, noise, steps)
    kept = model.inpaint(prefilled, noise, steps, known, column(1, 1, 0, 0, 0))
    assert torch.equal(kept[:, :2], known[:, :2])
    assert torch.equal(model.inpaint(prefilled, noise, steps, known, column(1, 1, 1, 1, 1)), known)
    assert torch.equal(model.inpaint(prefilled, noise, steps, known, column(0, 0, 0, 0, 0)), free)
    if steps > 1:  # in one step there is nothing to look back at
        assert (kept[:, 2:] - free[:, 2:]).abs().max() > 1e-4, "what follows must depend on what it continues"


def test_a_flow_with_a_larger_weight_ends_nearer_to_the_known_row(flowing: VlaPolicy) -> None:
    model, prefilled, noise, known = flow(flowing)
    distances = [
        (model.inpaint(prefilled, noise, 5, known, column(*[weight] * 5)) - known).abs().mean()
        for weight in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == 0


@pytest.mark.parametrize("time", [1.0, 0.7, 0.1])
def test_a_pulled_velocity_implies_the_average_of_the_two_clean_chunks(time: float) -> None:
    velocity, actions, known = torch.randn(3, 2, HORIZON, COLUMNS, generator=torch.Generator().manual_seed(0))
    weights = column(1, 0.7, 0.2, 0)
    clean = actions - time * pulled(velocity, actions, time, known, weights)
    torch.testing.assert_close(clean, torch.lerp(actions - time * velocity, known, weights))


@pytest.mark.parametrize("execution", ["eager", "lean", "published"])
@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_a_flow_policy_s_chunk_begins_with_the_frozen_rows_bit_for_bit(execution: str, frozen: int) -> None:
    policy = member("pi0", {**GUIDED, "execution": execution})
    assert policy.spec.inpaints
    seen, other = robots(policy, 2)
    rows = policy.infer(other).actions[:3]
    chunk = policy.infer(replace(seen, committed=rows, frozen=frozen))
    assert chunk.actions[:frozen].tobytes() == rows[:frozen].tobytes()
    assert not np.array_equal(chunk.actions[3:], policy.infer(seen).actions[3:])


def test_a_policy_that_says_words_cannot_continue() -> None:
    assert not member("openvla", GUIDED).spec.inpaints


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> VlaPolicy:
    return load_policy(checkpoint=save_small(tmp_path_factory.mktemp("inpainting") / "checkpoint"))


def committed(rows: int = 3, seed: int = 0) -> np.ndarray:
    """Actions that PROCESSING can express, in physical units."""
    random = np.random.default_rng(seed)
    return PROCESSING.physical_actions(random.uniform(-1, 1, (rows, COLUMNS)).astype(np.float32))


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_a_policy_s_chunk_begins_with_the_frozen_rows_bit_for_bit(policy: VlaPolicy, frozen: int) -> None:
    assert policy.spec.inpaints
    rows = committed()
    chunk = policy.infer(replace(observation(), committed=rows, frozen=frozen))
    assert chunk.actions.shape == (HORIZON, COLUMNS)
    assert chunk.actions[:frozen].tobytes() == rows[:frozen].tobytes()


def test_what_follows_depends_on_what_is_committed(policy: VlaPolicy) -> None:
    free = policy.infer(observation()).actions
    answers = [policy.infer(replace(observation(), committed=committed(seed=s), frozen=2)).actions for s in (1, 2)]
    assert not np.array_equal(answers[0][3], free[3])
    assert not np.array_equal(answers[0][3], answers[1][3])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros((5, 3), np.float32), "1 to 4 committed rows of 3 actions; the observation has 5 of 3"),
        (np.zeros((2, 2), np.float32), "the observation has 2 of 2"),
        (np.zeros((0, 3), np.float32), "the observation has 0 of 3"),
    ],
)
def test_committed_actions_of_another_shape_are_refused(policy: VlaPolicy, rows: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        policy.infer(replace(observation(), committed=rows))


def test_a_policy_that_cannot_says_so() -> None:
    spec = replace(load_policy("tiny").spec, inpaints=False, cameras=(), state=())
    with pytest.raises(InputError, match="cannot continue committed actions"):
        spec.check(Observation({}, "lift", committed=np.zeros((1, 7), np.float32)))


@pytest.mark.parametrize("rotation", ["vector", "euler"])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_normalising_inverts_physical_actions(rotation: str, threshold: float) -> None:
    seven = load_policy("tiny").processing
    processing = replace(seven, rotation=rotation, command_threshold=threshold)
    normalised = np.random.default_rng(0).uniform(-1, 1, (50, 7)).astype(np.float32)
    normalised[:, 6] = np.where(normalised[:, 6] > 0, 1, 2 * threshold - 1)
    back = processing.normalised_actions(processing.physical_actions(normalised))
    np.testing.assert_allclose(back, normalised, atol=1e-4)


def test_euler_angles_invert_rotation_vector() -> None:
    euler = np.random.default_rng(0).uniform([-3, -1.5, -3], [3, 1.5, 3], (200, 3))
    np.testing.assert_allclose(euler_angles(rotation_vector(euler)), euler, atol=1e-4)
    np.testing.assert_array_equal(euler_angles(np.zeros(3)), np.zeros(3))


def test_the_published_weights() -> None:
    # arXiv 2506.07339, eq. 5, with H = 8, s = 3 and d = 2: c_i = (5 - i) / 4 for i = 2, 3, 4.
    c = np.array([3, 2, 1]) / 4
    expected = [1, 1, *(c * (np.exp(c) - 1) / (np.e - 1)), 0, 0, 0]
    np.testing.assert_allclose(prefix_weights(2, 5, 8), expected, rtol=1e-6)
    np.testing.assert_array_equal(prefix_weights(3, 3, 4), [1, 1, 1, 0])
    with pytest.raises(InputError, match="is needed, got 3, 2 and 4"):
        prefix_weights(3, 2, 4)
