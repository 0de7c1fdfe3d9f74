"""Families are found by looking, have the published numbers of parameters, and their presets can be built at random."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import vla.models
from tests.vla.resident import STATUS, watched
from vla import presets
from vla.api import InputError, Observation
from vla.checkpoints import memory
from vla.checkpoints.weights import bytes_needed, compute_buffers, empty, fill, randomise
from vla.models import cogact, family, openvla
from vla.models.cogact import CogAct, CogActConfig
from vla.models.openvla import OpenVlaConfig
from vla.models.trunk import Trunk
from vla.policy import VlaPolicy, load_policy

SMALL: dict[str, Any] = {
    "image_size": 28,
    "patch_size": 14,
    "vision_backbone": "dinosiglip",
    "vision_width": 16,
    "vision_depth": 3,
    "vision_heads": 2,
    "registers": 4,
    "siglip_width": 24,
    "siglip_depth": 2,
    "siglip_heads": 3,
    "siglip_mlp_width": 40,
    "language_width": 32,
    "language_depth": 2,
    "language_heads": 2,
    "language_mlp_width": 48,
    "language_head": True,
    "vocabulary": 1024,
    "max_prompt": 64,
    "state_dim": 0,
    "prompt_suffix": (5, 6),
}
COGACT = CogActConfig(**SMALL, head_width=32, head_depth=2, head_heads=2, horizon=4)
OPENVLA = OpenVlaConfig(**SMALL, action_words=1000)
CPU = torch.device("cpu")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def nano(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small presets of both families."""
    monkeypatch.setitem(cogact.FAMILY.presets, "cogact_nano", COGACT)
    monkeypatch.setitem(openvla.FAMILY.presets, "openvla_nano", OPENVLA)


def test_every_family_goes_by_the_name_of_its_file() -> None:
    files = {path.stem for path in Path(str(vla.models.__file__)).parent.glob("*.py")}
    assert {"cogact", "openvla"} <= set(family.model_types()) <= files
    for model_type in family.model_types():
        assert family.find(model_type).model_type == model_type


@pytest.mark.parametrize("name", ["trunk", "os", "heads.dit", "../cogact", "", None, 3])
def test_what_is_no_family_is_refused_with_those_that_are(name: object) -> None:
    with pytest.raises(InputError, match=r"is not one of \[.*'cogact', 'openvla'"):
        family.find(name)


@pytest.mark.parametrize(
    ("preset", "head"), [("cogact_small", 12_476_807), ("cogact_base", 88_986_887), ("cogact_large", 307_764_231)]
)
def test_cogact_has_the_published_numbers_of_parameters(preset: str, head: int) -> None:
    model = empty(cogact.FAMILY, cogact.FAMILY.presets[preset])
    assert isinstance(model, CogAct)
    assert count(model.head) == head
    assert count(model.language) == 6_738_939_904  # Llama-2-7B with 64 rows more on both ends
    assert round((count(model.vision) + count(model.projector)) / 1e6, 1) == 802.3


def test_the_fused_tower_has_timm_s_parameters_and_two_rows_that_do_nothing() -> None:
    """timm: DINOv2 303,230,976 and SigLIP 427,680,704; here a mask token and the class token's own position come on."""
    model = empty(openvla.FAMILY, openvla.FAMILY.presets["openvla_7b"])
    assert isinstance(model, Trunk)
    assert count(model.vision) == 303_230_976 + 427_680_704 + 2 * 1024
    assert count(model.projector) == 71_385_600


def gflops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        work()
    return counter.get_total_flops() / 1e9


def test_cogact_base_takes_the_published_operations() -> None:
    """EfficientVLA's table 1: 405.50 G for vision, 57.96 G for ten guided steps of the head."""
    model = empty(cogact.FAMILY, cogact.FAMILY.presets["cogact_base"])
    assert isinstance(model, CogAct)
    with torch.device("meta"):
        images, chunk = torch.empty(1, 1, 6, 224, 224), torch.empty(2, 16, 7)
        condition, timesteps = torch.empty(2, 4096), torch.empty(2)
        assert gflops(lambda: model.encode(images)) == pytest.approx(405.5, rel=0.02)
        assert 10 * gflops(lambda: model.head.net(chunk, timesteps, condition)) == pytest.approx(57.96, rel=0.02)


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_s_config_survives_a_round_trip(name: str) -> None:
    for model_type in family.model_types():
        found = family.find(model_type)
        if name in found.presets:
            config = found.presets[name]
            assert found.config_class.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("size", [28, 14])
@torch.no_grad()
def test_the_fused_tower_reads_two_towers_images(size: int) -> None:
    model = CogAct(COGACT).eval()
    images = torch.randn(1, 1, 6, size, size)
    tokens = model.encode(images)
    assert tokens.shape == (1, (size // 14) ** 2, 32)
    for channels in (slice(0, 3), slice(3, 6)):
        changed = images.clone()
        changed[:, :, channels] += 1
        assert not torch.allclose(model.encode(changed), tokens)


@torch.no_grad()
def test_a_model_built_without_memory_is_the_same_model() -> None:
    model = CogAct(COGACT).eval()
    twin = fill(empty(cogact.FAMILY, COGACT), model.state_dict())
    assert isinstance(twin, CogAct)
    images, prompt = torch.randn(1, 1, 6, 28, 28), torch.tensor([[7, 8, 9]])
    ours, theirs = (each.prefill(each.encode(images), prompt, None) for each in (model, twin))
    assert torch.equal(ours, theirs)


def test_a_buffer_without_a_value_is_noticed() -> None:
    with pytest.raises(AssertionError, match="compute_buffers"):
        compute_buffers(empty(cogact.FAMILY, COGACT))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vision_backbone": "clip"}, "vision_backbone"),
        ({"vision_backbone": "vit"}, "registers belongs to"),
        ({"siglip_depth": 0}, "siglip_depth"),
        ({"siglip_heads": 5}, "siglip_heads"),
        ({"prompt_suffix": [5, 1024]}, "prompt_suffix must be below"),
        ({"prompt_suffix": [-1]}, "prompt_suffix"),
        ({"language_head": 1}, "language_head"),
        ({"language_norm_eps": 0.0}, "language_norm_eps"),
    ],
)
def test_wrong_sizes_of_the_fused_trunk_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        CogActConfig.from_dict(COGACT.to_dict() | change)


@pytest.mark.parametrize(
    "change", [{"bins": 1}, {"action_words": 2000}, {"action_words": 100}, {"language_head": False}]
)
def test_wrong_action_words_are_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        replace(OPENVLA, **change)


@pytest.mark.parametrize(("name", "horizon"), [("cogact_nano", 4), ("openvla_nano", 1)])
@pytest.mark.usefixtures("nano")
def test_a_preset_runs_at_random(name: str, horizon: int) -> None:
    first, second = (load_policy(name, init="random", dtype="bf16") for _ in range(2))
    assert (first.spec.model, first.spec.checkpoint, first.spec.horizon) == (name, "random", horizon)
    images = {c.name: np.full((c.height, c.width, 3), 100, np.uint8) for c in first.spec.cameras}
    seen = Observation(images, "put the spoon on the towel")
    chunk = first.infer(seen)
    assert chunk.actions.shape == (horizon, 7)
    np.testing.assert_array_equal(chunk.actions, second.infer(seen).actions)


@pytest.mark.usefixtures("nano")
def test_random_weights_are_made_in_the_dtype_they_are_used_in() -> None:
    model = load_policy("cogact_nano", init="random", dtype="bf16").model
    dtypes = {name.partition(".")[0]: parameter.dtype for name, parameter in model.named_parameters()}
    assert dtypes.pop("head") == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16}


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux to say what memory is taken")
def test_random_weights_take_memory_once() -> None:
    config = replace(COGACT, language_width=1024, language_mlp_width=4096, language_depth=4)
    model = empty(cogact.FAMILY, config)
    needed = bytes_needed(model, torch.bfloat16)
    randomise(empty(cogact.FAMILY, COGACT), CPU, torch.bfloat16)  # what is loaded on first use does not count
    with watched() as peak:
        randomise(model, CPU, torch.bfloat16)
    assert needed > 100e6
    assert peak.extra < 1.2 * needed + 40e6  # and the block of random numbers


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["cogact_nano", "openvla_nano"])
@pytest.mark.usefixtures("nano")
def test_a_preset_is_the_same_on_a_gpu(name: str) -> None:
    here, there = (load_policy(name, init="random", device=device) for device in ("cpu", "cuda"))
    images = {c.name: np.full((c.height, c.width, 3), 100, np.uint8) for c in here.spec.cameras}
    seen = Observation(images, "put the spoon on the towel")
    np.testing.assert_allclose(there.infer(seen).actions, here.infer(seen).actions, atol=1e-3)


def test_a_preset_has_no_trained_weights() -> None:
    with pytest.raises(InputError, match=r"no weights ship for cogact_base.*init=random"):
        load_policy("cogact_base")


def test_an_unknown_model_is_refused_with_shipped_ones_and_presets() -> None:
    with pytest.raises(InputError, match=r"allowed: tiny.*cogact_base, cogact_large, cogact_small, openvla_7b"):
        load_policy("cogact_huge", init="random")


def test_too_little_memory_is_said_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 16_000_000_000)
    with pytest.raises(
        InputError, match=r"needs 30\.5 GB of memory in float32, cpu has 16\.0 GB free; in bfloat16.* 15\.4"
    ):
        load_policy("cogact_base", init="random")


def test_free_memory_is_known_here() -> None:
    free = memory.available(CPU)
    assert free is None or free > 0


def test_a_small_preset_fits(nano: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: None)
    assert isinstance(load_policy("openvla_nano", init="random"), VlaPolicy)
