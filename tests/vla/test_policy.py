"""Laws of VlaPolicy: actions depend on the observation alone, and names that do not exist are refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla.small import CAMERA, INSTRUCTION, observation, save_small, small_config
from vla import recipe as recipes
from vla.api import InputError, Observation
from vla.calibration.stored import FILE as CALIBRATION
from vla.calibration.stored import arbitrary
from vla.checkpoints import native
from vla.models.cogact import CogAct
from vla.models.vision.vit import VisionTower
from vla.policy import VlaPolicy, load_policy, noise_seed
from vla.precision import find_dtype
from vla.timing import Untimed


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("policy") / "checkpoint")


@pytest.fixture
def policy(checkpoint: Path) -> VlaPolicy:
    return load_policy(checkpoint=checkpoint)


def actions(policy: VlaPolicy, seen: Observation) -> np.ndarray:
    return policy.infer(seen).actions


def test_a_chunk_is_as_the_spec_promises(policy: VlaPolicy) -> None:
    chunk = policy.infer(observation())
    assert chunk.actions.shape == (policy.spec.horizon, len(policy.spec.actions)) == (4, 3)
    assert chunk.period == policy.spec.period == 0.2
    assert (policy.spec.recipe, len(policy.spec.checkpoint)) == ("none", 12)


def test_another_checkpoint_goes_by_its_directory_s_name(policy: VlaPolicy, checkpoint: Path) -> None:
    assert policy.spec.model == "checkpoint"
    assert load_policy(checkpoint=checkpoint / "." / ".." / checkpoint.name).spec.model == "checkpoint"


def test_timing_changes_nothing(policy: VlaPolicy) -> None:
    timed = policy.infer(observation())
    policy.spans = Untimed
    untimed = policy.infer(observation())
    assert set(timed.timing) == {"encode", "prefill", "head", "total"}
    assert not untimed.timing
    np.testing.assert_array_equal(timed.actions, untimed.actions)


def test_stages_lie_within_the_total(policy: VlaPolicy) -> None:
    timing = dict(policy.infer(observation()).timing)
    total = timing.pop("total")
    assert all(ms > 0 for ms in timing.values())
    assert sum(timing.values()) <= total


def test_actions_do_not_depend_on_what_was_asked_before(checkpoint: Path) -> None:
    seen = [
        observation(seed, session, step) for seed, (session, step) in enumerate((s, t) for s in "ab" for t in (0, 1))
    ]
    forward, backward = load_policy(checkpoint=checkpoint), load_policy(checkpoint=checkpoint)
    first = [actions(forward, each) for each in seen]
    backward.reset("a")
    second = [actions(backward, each) for each in reversed(seen)][::-1]
    np.testing.assert_array_equal(first, second)


def test_actions_do_not_depend_on_torch_randomness(policy: VlaPolicy) -> None:
    torch.manual_seed(1)
    first = actions(policy, observation())
    torch.manual_seed(2)
    np.testing.assert_array_equal(actions(policy, observation()), first)


@pytest.mark.parametrize(
    "other",
    [
        observation(seed=1),
        observation(session="another"),
        observation(step=1),
        observation(instruction="put carrot on plate"),
    ],
)
def test_actions_depend_on_everything_in_the_observation(policy: VlaPolicy, other: Observation) -> None:
    assert not np.array_equal(actions(policy, observation()), actions(policy, other))


def test_actions_depend_on_the_state(policy: VlaPolicy) -> None:
    seen = observation()
    moved = Observation(seen.images, INSTRUCTION, np.array([0.4, 1.0], np.float32), session="robot")
    assert not np.array_equal(actions(policy, seen), actions(policy, moved))


def test_noise_is_the_same_in_every_process() -> None:
    assert noise_seed("robot", 3) == 8774521835807779350
    seeds = {noise_seed(session, step) for session in ("a", "b", "a1", "\ud800") for step in (0, 1, 11)}
    assert len(seeds) == 12


def test_guidance_of_one_is_the_condition_as_it_is(checkpoint: Path) -> None:
    """The guided formula at scale 1 + tiny is within rounding of the shortcut at exactly 1."""
    plain, guided = (
        actions(load_policy(checkpoint=checkpoint, recipe=recipe), observation())
        for recipe in ({"denoising_steps": 10, "guidance_scale": scale} for scale in (1.0, 1.0 + 1e-7))
    )
    np.testing.assert_allclose(guided, plain, atol=1e-5)


def test_bfloat16_is_near_float32_and_keeps_the_head_and_buffers(checkpoint: Path, policy: VlaPolicy) -> None:
    rounded = load_policy(checkpoint=checkpoint, dtype="bfloat16")
    np.testing.assert_allclose(actions(rounded, observation())[:, :2], actions(policy, observation())[:, :2], atol=0.02)
    assert isinstance(rounded.model, CogAct)
    kept = [parameter.dtype for parameter in rounded.model.head.parameters()]
    kept += [buffer.dtype for buffer in rounded.model.buffers() if buffer.is_floating_point()]
    assert torch.bfloat16 not in kept
    assert isinstance(rounded.model.vision, VisionTower)
    assert rounded.model.vision.vit.embeddings.cls_token.dtype == torch.bfloat16


def test_random_weights_are_other_weights(checkpoint: Path, policy: VlaPolicy) -> None:
    untrained = load_policy(checkpoint=checkpoint, init="random")
    assert untrained.spec.checkpoint == "random"
    assert not np.array_equal(actions(untrained, observation()), actions(policy, observation()))


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        (Observation({}, INSTRUCTION, np.zeros(2, np.float32)), CAMERA),
        (Observation({CAMERA: np.zeros((32, 16, 3), np.uint8)}, INSTRUCTION, np.zeros(2, np.float32)), "32 x 16"),
        (Observation({CAMERA: np.zeros((32, 32, 3), np.uint8)}, INSTRUCTION), "gripper"),
        (observation(instruction="unintelligible " * 20), "at most 32"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(policy: VlaPolicy, seen: Observation, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        policy.infer(seen)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"model": "huge", "checkpoint": None}, "unknown model 'huge'; allowed"),
        ({"recipe": "fastest"}, "unknown recipe accel='fastest'; allowed: none"),
        ({"recipe": {"steps": 3}}, "denoising_steps.*guidance_scale.*steps"),
        ({"recipe": {"denoising_steps": 150, "guidance_scale": 1.5}}, "150 denoising steps .*allowed"),
        ({"recipe": {"denoising_steps": True, "guidance_scale": 1.5}}, "denoising_steps must be"),
        ({"recipe": {"denoising_steps": 10, "guidance_scale": float("nan")}}, "guidance_scale must be"),
        ({"dtype": "int8"}, "dtype 'int8'; allowed: float32, bfloat16.*auto"),
        ({"model": "cogact_base"}, "model=cogact_base and checkpoint=.* each say which model it is; leave one out"),
        ({"device": "tpu"}, "device='tpu' is not there; this machine has: cpu"),
        ({"init": "zeros"}, "init 'zeros'; allowed: trained, random"),
        ({"checkpoint": "/nowhere"}, "/nowhere"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_what_does(
    checkpoint: Path, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        load_policy(**{"checkpoint": checkpoint, **arguments})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="device='cuda' is not there; this machine has: cpu"):
        load_policy(checkpoint=checkpoint, device="cuda")


@pytest.mark.parametrize(
    ("there", "chosen", "warned"),
    [({"avx2": True}, torch.float32, True), ({"avx512_bf16": True}, torch.bfloat16, False)],
)
def test_bfloat16_is_chosen_or_warned_of_by_what_the_processor_has(
    there: dict[str, bool],
    chosen: torch.dtype,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)
    processor = torch.device("cpu")
    assert find_dtype("auto", processor) == chosen
    assert find_dtype("fp32", processor) == torch.float32
    assert not caplog.records
    assert find_dtype("bf16", processor) == torch.bfloat16
    assert ["no instructions for bfloat16" in record.message for record in caplog.records] == [True] * warned


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_actions_within_rounding(checkpoint: Path, policy: VlaPolicy) -> None:
    there = load_policy(checkpoint=checkpoint, device="cuda")
    np.testing.assert_allclose(actions(there, observation()), actions(policy, observation()), atol=1e-4)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with what recipes may need of a calibration."""
    directory = save_small(tmp_path_factory.mktemp("calibrated") / "checkpoint")
    made = arbitrary(small_config().language_depth, small_config().language_mlp_width)
    replace(made, checkpoint=native.weights_hash(directory)).write(directory / CALIBRATION)
    return directory


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_runs(calibrated: Path, name: str) -> None:
    try:
        policy = load_policy(checkpoint=calibrated, recipe=name)
    except InputError as error:
        if any(reason in str(error) for reason in ("needs torchao", "needs a GPU", "does not apply to this model")):
            pytest.skip(str(error))
        raise
    assert policy.spec.recipe == name
    assert np.isfinite(actions(policy, observation())).all()
