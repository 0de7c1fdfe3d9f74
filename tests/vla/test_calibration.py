"""Laws of calibrations and of what prunes by them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla.clones import demonstrations
from tests.vla.family_members import GUIDED, answered, member, relative, robots
from tests.vla.small import TOKENIZER, observation, save_small
from vla.accelerate import decoders
from vla.accelerate.weights.prune_layers import PruneLayers
from vla.accelerate.weights.prune_mlp import PruneMlp, importance
from vla.api import InputError
from vla.calibration.measured import calibrate, measure
from vla.calibration.stored import FILE, OF_LAYERS, Calibration, arbitrary, find
from vla.checkpoints import native
from vla.checkpoints.weights import empty
from vla.models import family
from vla.policy import VlaPolicy, load_policy

LEAN = {**GUIDED, "execution": "lean"}
PRUNED = {**LEAN, "weights": [{"method": "prune_layers", "keep": 1}, {"method": "prune_mlp", "share": 0.25}]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("calibration") / "checkpoint")


@pytest.fixture(scope="module")
def found(checkpoint: Path) -> Calibration:
    return calibrate([(load_policy(checkpoint=checkpoint), demonstrations())], 3, "squares")


def test_a_calibration_knows_every_layer_and_channel(checkpoint: Path, found: Calibration) -> None:
    config = load_policy(checkpoint=checkpoint).model.config
    assert (found.depth, found.width) == (config.language_depth, config.language_mlp_width)
    assert found.checkpoint == native.weights_hash(checkpoint)
    assert (found.frames, found.dataset) == (3, "squares")
    assert all(0 < value < 2 for criterion in OF_LAYERS for value in found.layers[criterion])


def test_measuring_leaves_the_model_as_it_was(checkpoint: Path) -> None:
    policy = load_policy(checkpoint=checkpoint)
    before = policy.infer(observation()).actions
    assert json.dumps([each.tolist() for each in vars(measure(policy, observation())).values()]) == json.dumps(
        [each.tolist() for each in vars(measure(policy, observation())).values()]
    )
    np.testing.assert_array_equal(policy.infer(observation()).actions, before)


@pytest.mark.parametrize("name", ["cogact_vit", "openvla", "pi0"])
def test_every_family_can_be_measured(name: str) -> None:
    policy = member(name)
    seen = measure(policy, robots(policy, 1)[0])
    assert seen.hidden.shape == seen.output.shape == (decoders.depth(policy.model),)
    assert seen.squares.shape == seen.slopes.shape == (decoders.depth(policy.model), decoders.mlp_width(policy.model))


def test_a_layer_that_does_nothing_has_no_importance() -> None:
    policy = member("cogact_vit")
    layer: Any = policy.model.decoders[0].layers[1]
    with torch.no_grad():
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    seen = measure(policy, robots(policy, 1)[0])
    assert seen.hidden[1].abs() < 1e-6 < seen.hidden[0]
    assert seen.output[1].abs() < 1e-6 < seen.output[0]


def test_what_is_written_is_read(tmp_path: Path, found: Calibration) -> None:
    found.write(tmp_path / FILE)
    again = Calibration.read(tmp_path / FILE)
    np.testing.assert_allclose(again.channels["output"], found.channels["output"], rtol=1e-3)
    np.testing.assert_allclose(again.layers["output"], found.layers["output"], rtol=1e-3)
    assert (again.checkpoint, again.dataset, again.frames) == (found.checkpoint, found.dataset, found.frames)


def test_a_recipe_finds_the_calibration_beside_the_weights_or_where_it_says(
    tmp_path: Path, checkpoint: Path, found: Calibration
) -> None:
    with pytest.raises(InputError, match="prune_layers needs a calibration of this checkpoint"):
        load_policy(checkpoint=checkpoint, recipe=PRUNED)
    elsewhere = tmp_path / "elsewhere.json"
    found.write(elsewhere)
    pruned = load_policy(checkpoint=checkpoint, recipe={**PRUNED, "calibration": str(elsewhere)})
    assert decoders.depth(pruned.model) == pruned.model.config.language_depth == 1
    kept = decoders.numbers(pruned.model)
    assert found.layers["hidden"][kept[0]] == max(found.layers["hidden"])
    found.write(checkpoint / FILE)
    try:
        beside = load_policy(checkpoint=checkpoint, recipe=PRUNED)
        np.testing.assert_array_equal(beside.infer(observation()).actions, pruned.infer(observation()).actions)
    finally:
        (checkpoint / FILE).unlink()


def test_a_calibration_of_another_checkpoint_is_refused(tmp_path: Path, checkpoint: Path, found: Calibration) -> None:
    stale = tmp_path / "stale.json"
    replace(found, checkpoint="0123456789ab").write(stale)
    with pytest.raises(InputError, match=r"stale.json was made for the checkpoint 0123456789ab, this one is \w{12}"):
        load_policy(checkpoint=checkpoint, recipe={**PRUNED, "calibration": str(stale)})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda values: values.pop("frames"), "has the keys"),
        (lambda values: values.update(layers={"hidden": [1.0, 2.0]}), "needs the layers' importance by"),
        (lambda values: values.update(channels=[[1.0]]), "needs the channels' importance by"),
        (lambda values: values["channels"].update(output=[[1.0]]), "must know every layer once"),
        (lambda values: values["channels"].update(output=[["x"], ["y"]]), "lists of finite numbers"),
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, found: Calibration, change: Any, complaint: str) -> None:
    found.write(tmp_path / FILE)
    values = json.loads((tmp_path / FILE).read_text())
    change(values)
    (tmp_path / FILE).write_text(json.dumps(values))
    with pytest.raises(InputError, match=complaint):
        find(tmp_path, None, found.checkpoint)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ({"method": "prune_layers", "keep": 0}, "keep must be a number of layers from 1 on"),
        ({"method": "prune_layers", "keep": 1.5}, "a share above 0.0 and up to 1.0, got 1.5"),
        ({"method": "prune_layers", "keep": 3}, "it has 2 layers, fewer than keep = 3"),
        ({"method": "prune_layers", "layers": []}, "at least one layer to keep, .* got \\[\\]"),
        ({"method": "prune_layers", "layers": [1, 0]}, "ascending"),
        ({"method": "prune_layers", "layers": [0, 2]}, "its layers are 0 to 1, layer 2 cannot be kept"),
        ({"method": "prune_layers", "criterion": "luck"}, "criterion must be one of"),
        ({"method": "prune_mlp", "share": 1.0}, "from 0 to below 1, got 1.0"),
        ({"method": "prune_mlp", "share": 0.999}, "48 wide, share = 0.999 leaves nothing"),
        ({"method": "prune_mlp", "criterion": "luck"}, "criterion must be one of"),
        (["prune_layers", {"method": "prune_layers", "keep": 1}, {"method": "prune_layers", "layers": [1]}], "0 to 0"),
    ],
)
def test_what_cannot_be_pruned_is_refused(weights: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        member("cogact_vit", {**LEAN, "weights": weights})


def test_the_channels_that_matter_stay() -> None:
    """Those that are never active can go without any change at all, whatever their weights."""
    quiet, width = 12, 48
    silent = member("cogact_vit")
    for layer in silent.model.decoders[0].layers:
        with torch.no_grad():
            layer.mlp.up_proj.weight[:quiet] = 0
    expected = answered(silent, robots(silent, 1))
    measured = [[0.0] * quiet + [1.0] * (width - quiet)] * 2
    PruneMlp(quiet / width, "activation", measured).apply(silent.model)
    assert silent.model.config.language_mlp_width == width - quiet
    assert relative(answered(silent, robots(silent, 1)), expected) < 1e-5


def test_importance_is_the_size_of_what_a_channel_adds() -> None:
    mlp: Any = member("cogact_vit").model.decoders[0].layers[0].mlp
    rms = torch.rand(48, generator=torch.Generator().manual_seed(0))
    adds = mlp.down_proj.weight * rms  # (width, channels): what each channel adds when it is as active as usual
    torch.testing.assert_close(importance(mlp, "activation", rms.tolist()), adds.detach().norm(dim=0))


def test_slopes_are_what_leaving_a_channel_out_changes() -> None:
    """To first order: with a small weight, the channel's whole contribution."""
    policy = member("cogact_vit")
    down: Any = policy.model.decoders[0].layers[1].mlp.down_proj
    with torch.no_grad():
        down.weight[:, 3] *= 1e-3
        steep = measure(policy, robots(policy, 1)[0]).slopes[1, 3].sqrt()
        expected = _feature(policy)
        down.weight[:, 3] = 0
        change = (_feature(policy) - expected).norm() / expected.norm()
    assert float(steep) == pytest.approx(float(change), rel=0.7)  # eight random directions tell a length roughly


def _feature(policy: VlaPolicy) -> torch.Tensor:
    images, prompt, state = policy.tensors(robots(policy, 1))
    return policy.model.prefill(policy.model.encode(images), prompt, state)


@pytest.mark.parametrize(("keep", "expected"), [(1.0, 7.63), (0.875, 5.87), (0.6875, 4.86)])
def test_cogact_base_has_the_published_sizes(keep: float, expected: float) -> None:
    """EfficientVLA, tables 2 and 3: 7.63, 5.87 and 4.86 billion parameters."""
    cogact = family.find("cogact")
    model = empty(cogact, cogact.presets["cogact_base"])
    if keep < 1:
        calibration = arbitrary(32, 11008)
        for technique in (PruneLayers(keep), PruneMlp(0.25, criterion="magnitude")):
            model = technique.calibrated(model, calibration).apply(model)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e9 == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    ("width", "share", "expected"), [(48, 0.25, 36), (300, 0.1, 272), (268, 0.001, 268), (512, 0.25, 384)]
)
def test_what_stays_of_a_wide_mlp_can_be_quantised(width: int, share: float, expected: int) -> None:
    assert PruneMlp(share)._kept(width) == expected


def test_a_pruned_model_can_be_saved_and_loaded(tmp_path: Path, checkpoint: Path, found: Calibration) -> None:
    found.write(tmp_path / FILE)
    pruned = load_policy(checkpoint=checkpoint, recipe={**PRUNED, "calibration": str(tmp_path / FILE)})
    native.save(tmp_path / "pruned", pruned.model, pruned.processing, TOKENIZER, {})
    again = load_policy(checkpoint=tmp_path / "pruned", recipe=LEAN)
    np.testing.assert_array_equal(again.infer(observation()).actions, pruned.infer(observation()).actions)


def test_a_dataset_of_another_robot_or_too_few_frames_are_refused(checkpoint: Path) -> None:
    policy = load_policy(checkpoint=checkpoint)
    with pytest.raises(InputError, match="frames=31, but the demonstrations"):
        calibrate([(policy, demonstrations())], 31, "squares")
    other = replace(demonstrations(), views={"wrist": demonstrations().images})
    with pytest.raises(InputError, match="wrist"):
        calibrate([(policy, other)], 1, "squares")
