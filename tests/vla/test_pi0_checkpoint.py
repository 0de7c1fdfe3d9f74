"""pi0 directories of transformers and of LeRobot act as transformers' own model does, and every flaw is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PI0ForConditionalGeneration

from tests.vla.pi0_published import (
    ACTION,
    CONFIG,
    STATE,
    prompt_of,
    reference,
    sampled,
    save_lerobot,
    save_transformers,
)
from vla.api import Camera, InputError, Observation
from vla.checkpoints import native
from vla.checkpoints.checkpoint import Checkpoint, Choices, layout_of, nothing_before
from vla.images import BORDER_AFTER, BORDER_AROUND, Resize
from vla.policy import VlaPolicy, load_policy, noise_seed
from vla.recipe import find
from vla.rotations import rotation_vector

INSTRUCTION = "Put the Spoon on the towel"
TWO_CAMERAS = Choices(camera=("top", "wrist"), height=20, width=30, period=0.1)
AFTER = "policy_postprocessor.json"
STATISTICS = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
LAYOUTS = {"transformers": (save_transformers, TWO_CAMERAS), "lerobot": (save_lerobot, Choices(period=0.1))}


@pytest.fixture(scope="module")
def model() -> PI0ForConditionalGeneration:
    return reference()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, model: PI0ForConditionalGeneration) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pi0")
    return {name: save(root / name, model) for name, (save, _) in LAYOUTS.items()}


@pytest.fixture
def transformers_directory(tmp_path: Path, saved: dict[str, Path]) -> Path:
    return shutil.copytree(saved["transformers"], tmp_path / "transformers")


@pytest.fixture
def lerobot_directory(tmp_path: Path, saved: dict[str, Path]) -> Path:
    return shutil.copytree(saved["lerobot"], tmp_path / "lerobot")


def read(directory: Path, choices: Choices) -> Checkpoint:
    return layout_of(directory).load(directory, choices, nothing_before)


def policy(checkpoint: Checkpoint) -> VlaPolicy:
    return VlaPolicy(checkpoint, find("none"), "pi0", "", torch.device("cpu"), torch.float32)


def observation(cameras: tuple[Camera, ...], instruction: str = INSTRUCTION) -> Observation:
    random = np.random.default_rng(3)
    images = {c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in cameras}
    return Observation(images, instruction, np.array([0.3, -1.0, 0.4], np.float32), session="robot", step=4)


def expected(model: PI0ForConditionalGeneration, seen: Observation, strategy: str) -> np.ndarray:
    """(horizon, 7) what published code makes of an observation, in the units of the statistics."""
    views = [torch.from_numpy(image).movedim(-1, 0) for image in seen.images.values()]
    pixels = torch.stack([Resize(CONFIG.image_size, strategy)(view, (0, 0, 0)).float() for view in views])
    assert seen.state is not None
    state = (torch.from_numpy(seen.state) - torch.tensor(STATE["mean"])) / (torch.tensor(STATE["std"]) + 1e-8)
    generator = torch.Generator().manual_seed(noise_seed(seen.session, seen.step))
    noise = torch.randn(1, CONFIG.horizon, CONFIG.action_width, generator=generator)
    made = sampled(model, (pixels / 255 * 2 - 1)[None], prompt_of(seen.instruction), state[None], noise)
    return (made[0, :, :7] * torch.tensor(ACTION["std"]) + torch.tensor(ACTION["mean"])).numpy()


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_transformers_directory_acts_as_transformers_does(
    saved: dict[str, Path], model: PI0ForConditionalGeneration
) -> None:
    assert len(list(saved["transformers"].glob("model-*.safetensors"))) > 1
    ours = policy(read(saved["transformers"], TWO_CAMERAS))
    assert ours.spec.cameras == (Camera("top", 20, 30), Camera("wrist", 20, 30))
    assert (ours.spec.horizon, ours.spec.period, len(ours.spec.state), len(ours.spec.actions)) == (5, 0.1, 3, 7)
    seen = observation(ours.spec.cameras)
    np.testing.assert_allclose(ours.infer(seen).actions, expected(model, seen, BORDER_AFTER), atol=1e-5)


def test_lerobot_directory_acts_as_its_own_code_does(
    saved: dict[str, Path], model: PI0ForConditionalGeneration
) -> None:
    ours = policy(read(saved["lerobot"], Choices(period=0.1)))
    assert ours.spec.cameras == (Camera("top", 20, 30), Camera("wrist", 28, 28))  # the empty camera is none
    assert [quantity.name for quantity in ours.spec.actions][:2] == ["joint_0.pos", "joint_1.pos"]
    seen = observation(ours.spec.cameras)
    np.testing.assert_allclose(ours.infer(seen).actions, expected(model, seen, BORDER_AROUND), atol=1e-5)


def test_both_layouts_hold_the_same_model(saved: dict[str, Path]) -> None:
    first, second = (read(saved[name], choices).model for name, (_, choices) in LAYOUTS.items())
    assert first.config == second.config == CONFIG
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_known_robot_says_what_actions_mean(saved: dict[str, Path], model: PI0ForConditionalGeneration) -> None:
    """`load_policy` with the key of a dataset: camera, period, Euler angles, and a gripper that is shut or open."""
    assert len(load_policy(checkpoint=saved["lerobot"], dataset="bridge_orig").spec.cameras) == 2
    ours = load_policy(checkpoint=saved["transformers"], dataset="bridge_orig")
    assert (ours.spec.period, [c.name for c in ours.spec.cameras]) == (0.2, ["3rd_view_camera"])
    assert [quantity.unit for quantity in ours.spec.actions] == ["m", "m", "m", "rad", "rad", "rad", "1"]
    seen = observation(ours.spec.cameras)
    actions, plain = ours.infer(seen).actions, expected(model, seen, BORDER_AFTER)
    np.testing.assert_allclose(actions[:, :3], plain[:, :3], atol=1e-5)
    np.testing.assert_allclose(actions[:, 3:6], rotation_vector(plain[:, 3:6]), atol=1e-5)
    np.testing.assert_array_equal(actions[:, 6], np.where(plain[:, 6] >= 0.5, 1, -1))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_converting_to_the_native_layout_changes_no_action(saved: dict[str, Path], layout: str, tmp_path: Path) -> None:
    published = read(saved[layout], LAYOUTS[layout][1])
    native.save(tmp_path / "native", published.model, published.processing, published.tokenizer, published.training)
    before, after = policy(published), load_policy(checkpoint=tmp_path / "native")
    seen = observation(before.spec.cameras)
    np.testing.assert_array_equal(before.infer(seen).actions, after.infer(seen).actions)
    assert after.processing == published.processing


def test_capitals_reach_the_model_and_spaces_around_do_not(saved: dict[str, Path]) -> None:
    ours = policy(read(saved["transformers"], TWO_CAMERAS))
    words = (INSTRUCTION, INSTRUCTION.lower(), f"  {INSTRUCTION}\n")
    usual, lower, spaced = (ours.infer(observation(ours.spec.cameras, each)).actions for each in words)
    assert not np.array_equal(usual, lower)
    np.testing.assert_array_equal(usual, spaced)


def test_a_word_for_an_image_in_an_instruction_is_only_letters(saved: dict[str, Path]) -> None:
    ours = policy(read(saved["transformers"], TWO_CAMERAS))
    assert np.isfinite(ours.infer(observation(ours.spec.cameras, "<image>")).actions).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_hash_changes_with_weights_and_statistics(saved: dict[str, Path], layout: str, tmp_path: Path) -> None:
    found, choices = layout_of(saved[layout]), LAYOUTS[layout][1]
    copy = shutil.copytree(saved[layout], tmp_path / "copy")
    hashes = [found.weights_hash(each, choices) for each in (saved[layout], copy)]
    for path in (next(copy.glob("model*.safetensors")), copy / "config.json", *copy.glob("*processor*.safetensors")):
        changed = bytearray(path.read_bytes())
        changed[-2] ^= 1
        path.write_bytes(changed)
        hashes.append(found.weights_hash(copy, choices))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == len(hashes) - 1


def test_tensors_that_do_not_fit_are_named_as_published(lerobot_directory: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.action_in_proj.bias"]
        tensors["model.paligemma_with_expert.gemma_expert.model.stray"] = torch.zeros(1)
        tensors["model.paligemma_with_expert.paligemma.model.language_model.norm.weight"] = torch.zeros(3)

    edit_tensors(lerobot_directory / "model.safetensors", spoil)
    with pytest.raises(InputError) as error:
        read(lerobot_directory, Choices(period=0.1))
    message = str(error.value)
    assert "missing ['action_in_proj.bias']" in message
    assert "unexpected ['paligemma_with_expert.gemma_expert.model.stray']" in message
    assert "language_model.norm.weight is float32 (3,), wanted (32,)" in message


def test_word_embeddings_that_should_be_one_must_be(lerobot_directory: Path) -> None:
    def untie(tensors: dict[str, torch.Tensor]) -> None:
        words = tensors["model.paligemma_with_expert.paligemma.lm_head.weight"]
        tensors["model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"] = words + 1

    edit_tensors(lerobot_directory / "model.safetensors", untie)
    with pytest.raises(InputError, match="twice, under two names"):
        read(lerobot_directory, Choices(period=0.1))


def test_a_checkpoint_of_another_family_is_called_by_its_name(lerobot_directory: Path) -> None:
    save_file({"vision_backbone.featurizer.x": torch.zeros(1)}, lerobot_directory / "model.safetensors")
    with pytest.raises(InputError, match="it looks like OpenVLA"):
        read(lerobot_directory, Choices(period=0.1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(colour=1), "unknown keys ['colour']"),
        (lambda c: c["dit_config"].update(model_type="llama"), "dit_config must be an object of model_type 'gemma'"),
        (lambda c: c["dit_config"].update(num_hidden_layers=3), "differ in ['num_hidden_layers']"),
        (lambda c: c["dit_config"].update(hidden_act="relu"), "dit_config.hidden_act is 'relu'"),
        (lambda c: c["dit_config"].update(hidden_size=15), "no config of pi0"),
        (lambda c: c.update(chunk_size=0), "horizon"),
        (lambda c: c.update(max_state_dim=2), "state_dim must be at most state_width"),
        (lambda c: c.update(max_action_dim=8), "action_out_proj.weight is float32 (9, 16), wanted (8, 16)"),
    ],
)
def test_a_wrong_config_of_transformers_is_refused(
    transformers_directory: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    edit(transformers_directory / "config.json", change)
    with pytest.raises(InputError) as error:
        read(transformers_directory, TWO_CAMERAS)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: p.update(actions_mean=None), "no actions_mean and actions_std"),
        (lambda p: p.update(state_std=[1.0]), "state: mean, std and mask differ in length"),
        (lambda p: p["image_processor"].update(resample=2), "resample is 2, wanted 3"),
    ],
)
def test_a_wrong_processor_of_transformers_is_refused(
    transformers_directory: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    edit(transformers_directory / "processor_config.json", change)
    with pytest.raises(InputError, match=named):
        read(transformers_directory, TWO_CAMERAS)


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        (Choices(), "does not say what the cameras are"),
        (Choices(camera=("top",), height=20, width=30), "does not say how long one action lasts"),
        (Choices(dataset="moon"), "nothing is known about dataset=moon; known: bridge"),
    ],
)
def test_what_the_directory_does_not_say_must_be_said(saved: dict[str, Path], choices: Choices, named: str) -> None:
    with pytest.raises(InputError, match=named):
        read(saved["transformers"], choices)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_tokenizer_is_asked_for(saved: dict[str, Path], layout: str, tmp_path: Path) -> None:
    copy = shutil.copytree(saved[layout], tmp_path / "copy")
    next(copy.rglob("tokenizer.json")).unlink()
    with pytest.raises(InputError, match=r"tokenizer.json is missing: copy .* google/paligemma-3b-pt-224"):
        read(copy, LAYOUTS[layout][1])


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("config.json", lambda c: c.update(use_relative_actions=True), "use_relative_actions is True"),
        ("config.json", lambda c: c.update(n_obs_steps=2), "n_obs_steps is 2"),
        ("config.json", lambda c: c.pop("chunk_size"), "chunk_size"),
        ("config.json", lambda c: c.update(max_state_dim=32), "max_state_dim is 32, the tensors say 10"),
        ("config.json", lambda c: c["output_features"].clear(), "the feature action must have a shape"),
        ("config.json", lambda c: c["input_features"].pop("observation.state"), "the feature observation.state"),
        (AFTER, lambda p: p["steps"][0].pop("state_file"), "a base model has none, fine-tune it"),
        (AFTER, lambda p: p["steps"][0].update(state_file="../x"), "outside of its directory"),
        (AFTER, lambda p: p["steps"][0]["config"]["norm_map"].update(ACTION="LOG"), "'LOG'; allowed: MEAN_STD"),
        (AFTER, lambda p: p["steps"][1]["config"].update(enabled=True), "only policies of absolute actions"),
        (AFTER, lambda p: p["steps"].append({"registry_name": "mirror"}), r"not known here: \['mirror'\]"),
        (AFTER, lambda p: p.pop("steps"), "no list of steps"),
    ],
)
def test_what_lerobot_asks_for_and_cannot_be_done_is_refused(
    lerobot_directory: Path, file: str, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    edit(lerobot_directory / file, change)
    with pytest.raises(InputError, match=named):
        read(lerobot_directory, Choices(period=0.1))


@pytest.mark.parametrize(
    ("mode", "bounds"), [("MIN_MAX", ("min", "max")), ("QUANTILES", ("q01", "q99")), ("QUANTILE10", ("q10", "q90"))]
)
def test_lerobot_s_other_normalisations(lerobot_directory: Path, mode: str, bounds: tuple[str, str]) -> None:
    low, high = torch.linspace(-1, 0, 7), torch.linspace(1, 4, 7)
    edit(lerobot_directory / AFTER, lambda p: p["steps"][0]["config"]["norm_map"].update(ACTION=mode))
    save_file({f"action.{bounds[0]}": low, f"action.{bounds[1]}": high}, lerobot_directory / STATISTICS)
    found = read(lerobot_directory, Choices(period=0.1)).processing
    middle = found.physical_actions(np.zeros((1, 7), np.float32))
    np.testing.assert_allclose(middle[0], (low + high) / 2, atol=1e-6)
    np.testing.assert_allclose(
        found.physical_actions(np.full((1, 7), 2, np.float32))[0], low + 1.5 * (high - low), atol=1e-5
    )


def test_statistics_of_the_wrong_length_are_refused(lerobot_directory: Path) -> None:
    edit_tensors(lerobot_directory / STATISTICS, lambda t: t.update({"action.mean": torch.zeros(6)}))
    with pytest.raises(InputError, match=r"action.mean must have the shape \(7,\), got \(6,\)"):
        read(lerobot_directory, Choices(period=0.1))
