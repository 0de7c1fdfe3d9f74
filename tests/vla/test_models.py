"""The plain model: shapes, padding that changes nothing, a config that is checked, casts that keep positions exact."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vla.small import small_config, small_model
from vla.api import InputError
from vla.models.cogact import CogAct, CogActConfig

PAD = small_config().pad_id


@pytest.fixture(scope="module")
def model() -> CogAct:
    return small_model()


def images(batch: int, cameras: int = 1, size: int = 32) -> Tensor:
    return torch.randn(batch, cameras, 3, size, size, generator=torch.Generator().manual_seed(0))


def cognition(model: CogAct, prompt: list[list[int]]) -> Tensor:
    count = len(prompt)
    visual = model.encode(images(1).expand(count, -1, -1, -1, -1))
    return model.prefill(visual, torch.tensor(prompt), torch.full((count, 2), 0.3))


@torch.no_grad()
def test_stages_have_the_stated_shapes(model: CogAct) -> None:
    visual = model.encode(images(2))
    assert visual.shape == (2, 4, 32)
    feature = model.prefill(visual, torch.tensor([[5, 6, 7]] * 2), torch.zeros(2, 2))
    assert feature.shape == (2, 32)
    assert model.head.sample(feature, torch.zeros(2, 4, 3), 5, 1.5).shape == (2, 4, 3)


@torch.no_grad()
def test_padding_changes_nothing_wherever_it_stands(model: CogAct) -> None:
    alone = cognition(model, [[5, 6, 7]])
    for padded in ([PAD, PAD, 5, 6, 7], [5, 6, 7, PAD, PAD], [5, PAD, 6, 7, PAD]):
        together = cognition(model, [padded, [9, 10, 11, 12, 13]])
        torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together[1:], cognition(model, [[9, 10, 11, 12, 13]]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_everything_the_robot_says_reaches_the_head(model: CogAct) -> None:
    visual, prompt, state = model.encode(images(1)), torch.tensor([[5, 6]]), torch.zeros(1, 2)
    usual = model.prefill(visual, prompt, state)
    for changed in ((visual + 0.1, prompt, state), (visual, prompt + 1, state), (visual, prompt, state + 1)):
        assert (model.prefill(*changed) - usual).abs().max() > 1e-4


@torch.no_grad()
def test_cameras_stay_in_order_and_apart() -> None:
    torch.manual_seed(0)
    model = CogAct(replace(small_config(), cameras=2)).eval()
    both = images(1, cameras=2)
    tokens = model.encode(both)
    torch.testing.assert_close(tokens, torch.cat([model.encode(both[:, :1]), model.encode(both[:, 1:])], dim=1))


@torch.no_grad()
def test_smaller_images_give_fewer_tokens(model: CogAct) -> None:
    assert model.encode(images(1, size=16)).shape == (1, 1, 32)


def test_a_state_that_is_missing_is_refused(model: CogAct) -> None:
    with pytest.raises(InputError, match="state of 2 numbers"):
        model.prefill(model.encode(images(1)), torch.tensor([[5]]), None)


def test_a_model_without_state_needs_none() -> None:
    model = CogAct(replace(small_config(), state_dim=0))
    assert model.prefill(model.encode(images(1)), torch.tensor([[5]]), None).shape == (1, 32)


def test_casting_the_weights_leaves_positions_exact(model: CogAct) -> None:
    rotary = model.language.llama.rotary_emb
    cast = small_model().to(torch.bfloat16).float().bfloat16().language.llama
    assert torch.equal(cast.rotary_emb.inv_freq, rotary.inv_freq)
    assert torch.equal(cast.rotary_emb.original_inv_freq, rotary.original_inv_freq)
    assert {parameter.dtype for parameter in cast.parameters()} == {torch.bfloat16}


def test_config_survives_a_round_trip() -> None:
    assert CogActConfig.from_dict(small_config().to_dict()) == small_config()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"patch_size": 15}, "patch_size"),
        ({"vision_heads": 5}, "vision_heads"),
        ({"head_heads": 3}, "head_heads"),
        ({"horizon": 0}, "horizon"),
        ({"language_depth": 2.5}, "language_depth"),
        ({"cameras": True}, "cameras"),
        ({"prediction": "velocity"}, "velocity"),
        ({"vocabulary": 2}, "vocabulary"),
        ({"colour": 1}, "colour"),
    ],
)
def test_wrong_configs_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        CogActConfig.from_dict(small_config().to_dict() | change)


def test_a_missing_key_is_refused_by_name() -> None:
    values = small_config().to_dict()
    del values["horizon"]
    with pytest.raises(InputError, match="horizon"):
        CogActConfig.from_dict(values)
