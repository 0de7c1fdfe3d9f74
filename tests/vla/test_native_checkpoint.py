"""Laws of the native checkpoint: what was saved comes back, and every kind of damage is refused by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.vla.small import PROCESSING, TOKENIZER, TRAINING, observation, save_small, small_model
from vla.api import InputError
from vla.checkpoints import native
from vla.checkpoints.checkpoint import Checkpoint
from vla.policy import VlaPolicy, load_policy
from vla.recipe import find

TENSOR = "head.net.x_embedder.linear.weight"
FILES = (native.CONFIG, native.WEIGHTS, native.PROCESSING, native.TOKENIZER)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_small(tmp_path / "checkpoint")


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def edit_tensors(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_a_saved_model_acts_as_before_bit_for_bit(checkpoint: Path) -> None:
    memory = Checkpoint(small_model(), PROCESSING, TOKENIZER, TRAINING)
    before = VlaPolicy(memory, find("none"), "tiny", "", torch.device("cpu"), torch.float32)
    after = load_policy(checkpoint=checkpoint)
    np.testing.assert_array_equal(before.infer(observation()).actions, after.infer(observation()).actions)


def test_everything_saved_comes_back(checkpoint: Path) -> None:
    loaded = native.load(checkpoint)
    assert loaded.processing == PROCESSING
    assert loaded.training == TRAINING
    assert loaded.tokenizer.to_str() == TOKENIZER.to_str()
    assert not loaded.model.training
    for name, tensor in small_model().state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor, rtol=0, atol=0)


def test_saving_again_replaces_everything_and_leaves_nothing_beside(checkpoint: Path) -> None:
    (checkpoint / "stray").touch()
    save_small(checkpoint, seed=1)
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted(FILES)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_whoever_may_read_one_file_may_read_all(checkpoint: Path) -> None:
    assert len({(checkpoint / name).stat().st_mode for name in FILES}) == 1


def test_a_failed_save_leaves_the_old_checkpoint_whole(checkpoint: Path) -> None:
    before = native.weights_hash(checkpoint)
    with pytest.raises(TypeError):
        native.save(checkpoint, small_model(1), PROCESSING, TOKENIZER, {"options": object()})
    assert native.weights_hash(checkpoint) == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_loading_draws_no_random_numbers(checkpoint: Path) -> None:
    state = torch.random.get_rng_state()
    native.load(checkpoint)
    native.load(checkpoint, weights=False)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_weights_the_model_is_untrained_and_always_the_same(checkpoint: Path) -> None:
    (checkpoint / native.WEIGHTS).unlink()
    first, second = (native.load(checkpoint, weights=False).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first[TENSOR], small_model().state_dict()[TENSOR])


def test_the_hash_changes_with_the_weights_and_not_with_the_training_options(checkpoint: Path) -> None:
    before = native.weights_hash(checkpoint)
    edit_json(checkpoint / native.CONFIG, lambda config: config["training"].update(seed=7))
    assert native.weights_hash(checkpoint) == before
    edit_tensors(checkpoint / native.WEIGHTS, lambda tensors: tensors[TENSOR].add_(1))
    assert native.weights_hash(checkpoint) != before


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        native.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    with pytest.raises(InputError, match=name):
        native.load(checkpoint)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_named(checkpoint: Path, name: str) -> None:
    path = checkpoint / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=name):
        native.load(checkpoint)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda tensors: tensors.pop(TENSOR), rf"missing \['{TENSOR}'\]"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), r"unexpected \['extra'\]"),
        (lambda tensors: tensors.update({TENSOR: torch.zeros(2, 2)}), rf"{TENSOR} is float32 \(2, 2\), wanted"),
        (lambda tensors: tensors.update({TENSOR: tensors[TENSOR].bfloat16()}), rf"{TENSOR} is bfloat16"),
        (lambda tensors: tensors[TENSOR].fill_(torch.nan), rf"not finite in \['{TENSOR}'\]"),
    ],
)
def test_a_damaged_tensor_is_named(
    checkpoint: Path, edit: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    edit_tensors(checkpoint / native.WEIGHTS, edit)
    with pytest.raises(InputError, match=complaint):
        native.load(checkpoint)


@pytest.mark.parametrize(
    ("tensor", "family"),
    [
        ("body.vlm.x", "a pi0 of our own"),
        ("paligemma_with_expert.x", "pi0"),
        ("vision_backbone.featurizer.x", "OpenVLA as Hugging Face keeps it"),
        ("language.lm_head.weight", "an OpenVLA of our own"),
        ("x", "none of the families here"),
    ],
)
def test_weights_of_another_family_say_which(checkpoint: Path, tensor: str, family: str) -> None:
    def exchange(tensors: dict[str, torch.Tensor]) -> None:
        kept = {tensor: torch.zeros(1)}
        kept |= {name: t for name, t in tensors.items() if family == "an OpenVLA of our own" and "head.net" not in name}
        tensors.clear()
        tensors.update(kept)

    edit_tensors(checkpoint / native.WEIGHTS, exchange)
    with pytest.raises(InputError, match=rf"missing .*head\.net.*unexpected \['{tensor}'\].*it looks like {family}"):
        native.load(checkpoint)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda config: config.update(model_type="os.system"), "model_type 'os.system' is not one of"),
        (lambda config: config.pop("training"), "keys .*training"),
        (lambda config: config.update(auto_map={}), "auto_map"),
        (lambda config: config.update(architecture=[]), "architecture must be an object"),
        (lambda config: config["architecture"].update(chunk_szie=4), r"config\.json: .*chunk_szie"),
        (lambda config: config["architecture"].pop("horizon"), r"config\.json: .*horizon"),
        (lambda config: config["architecture"].update(horizon="4"), r"config\.json: .*horizon"),
        (lambda config: config["architecture"].update(language_width=64), "language.*wanted"),
        (lambda config: config["architecture"].update(vision_width=24_000_000), "vision.*wanted"),
        (lambda config: config["architecture"].update(image_size=64), "image sizes"),
        (lambda config: config["architecture"].update(vocabulary=500), "words: 500"),
        (lambda config: config["architecture"].update(bos_id=3), "first word: 3"),
    ],
)
def test_a_config_that_does_not_fit_is_named(
    checkpoint: Path, edit: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    edit_json(checkpoint / native.CONFIG, edit)
    with pytest.raises(InputError, match=complaint):
        native.load(checkpoint)


def test_processing_of_another_robot_is_refused(checkpoint: Path) -> None:
    def one_number_less(values: dict[str, Any]) -> None:
        values["state"] = values["state"][:1]
        values["state_range"] = {key: numbers[:1] for key, numbers in values["state_range"].items()}

    edit_json(checkpoint / native.PROCESSING, one_number_less)
    with pytest.raises(InputError, match="state numbers: 2 and 1"):
        native.load(checkpoint)


def test_processing_is_refused_with_its_file(checkpoint: Path) -> None:
    edit_json(checkpoint / native.PROCESSING, lambda values: values.update(period=-1))
    with pytest.raises(InputError, match=r"processing\.json: period"):
        native.load(checkpoint)


def test_a_checkpoint_of_several_robots_gives_that_of_the_robot_in_use(tmp_path: Path) -> None:
    slow = replace(PROCESSING, period=0.5)
    native.save(tmp_path / "both", small_model(), {"arm": PROCESSING, "rover": slow}, TOKENIZER, TRAINING)
    policies = {name: load_policy(checkpoint=tmp_path / "both", robot=name) for name in ("arm", "rover")}
    assert [policy.spec.period for policy in policies.values()] == [PROCESSING.period, 0.5]
    assert load_policy(checkpoint=tmp_path / "both").processing == PROCESSING
    assert load_policy(checkpoint=tmp_path / "both", dataset="rover", robot="arm").processing == slow
    assert load_policy(checkpoint=tmp_path / "both", init="random", robot="rover").processing == slow
    with pytest.raises(InputError, match="knows the robots arm, rover, not boat"):
        load_policy(checkpoint=tmp_path / "both", dataset="boat")


def test_a_checkpoint_of_one_robot_does_not_ask_which(checkpoint: Path) -> None:
    assert load_policy(checkpoint=checkpoint, robot="boat").processing == PROCESSING
