"""Published layouts: tiny CogACT and OpenVLA checkpoints act as their formulas say, in little memory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.vla import published as tiny
from tests.vla.published_forward import NORM_EPS, Reference
from tests.vla.resident import STATUS, watched
from tests.vla.small import save_small
from vla.api import InputError, Observation
from vla.checkpoints import memory, native, published
from vla.checkpoints.weights import bytes_needed
from vla.models.cogact import CogAct
from vla.models.openvla import OpenVla
from vla.policy import VlaPolicy, load_policy
from vla.precision import DTYPES
from vla.processing import Range
from vla.recipe import find
from vla.rotations import rotation_vector

PARTS = tiny.random_parts()
BRIDGE, FRACTAL = "bridge_orig", "fractal20220817_data"
INSTRUCTION = "Put the Spoon on the towel"
PROMPT = "In: What action should the robot take to put the spoon on the towel?\nOut:"  # in small letters, no space
WORDS = [tiny.BOS, *tiny.tokenizer().encode(PROMPT).ids, tiny.EMPTY_WORD]


def observation(camera: str = "3rd_view_camera", height: int = 480) -> Observation:
    image = np.random.default_rng(0).integers(0, 256, (height, 640, 3), dtype=np.uint8)
    return Observation({camera: image}, INSTRUCTION, session="robot", step=3)


def in_bfloat16(parts: dict[str, dict[str, torch.Tensor]]) -> dict[str, dict[str, torch.Tensor]]:
    return {part: {n: tensor.bfloat16().float() for n, tensor in named.items()} for part, named in parts.items()}


def physical(normalised: np.ndarray, dataset: str) -> np.ndarray:
    """CogACT's `predict_action` and its SIMPLER policy: clip, command, un-normalise, command to -1 or 1, rotation."""
    statistics = {key: np.array(values) for key, values in tiny.STATISTICS[dataset]["action"].items()}
    clipped = np.clip(normalised, -1, 1)
    clipped[:, 6] = np.where(clipped[:, 6] < 0.5, 0, 1)
    scaled = 0.5 * (clipped + 1) * (statistics["q99"] - statistics["q01"]) + statistics["q01"]
    actions = np.where(statistics["mask"], scaled, clipped)
    actions[:, 6] = 2 * (actions[:, 6] > 0.5) - 1
    actions[:, 3:6] = rotation_vector(actions[:, 3:6])
    return actions


@torch.no_grad()
@pytest.mark.parametrize(("dataset", "seen"), [(BRIDGE, observation()), (FRACTAL, observation("overhead_camera", 512))])
def test_cogact_acts_as_its_formulas_say(cogact: Path, dataset: str, seen: Observation) -> None:
    policy = load_policy(checkpoint=cogact, dataset=dataset)
    reference = Reference(PARTS, NORM_EPS["cogact"])
    pixels = policy.processing.images(seen)[0]
    cognition = reference.hidden(pixels, [*WORDS, tiny.EOS])[:, -1]
    noise = noise_of(policy, seen)
    expected = reference.sample(cognition, noise, 10, 1.5)
    prompt = torch.tensor([WORDS[1:-1]])
    ours = policy.stages.act(policy.model.prefill(policy.model.encode(pixels[None]), prompt, None), noise)
    torch.testing.assert_close(ours, expected, atol=2e-5 * expected.abs().max().item(), rtol=0)
    np.testing.assert_allclose(policy.infer(seen).actions, physical(expected[0].numpy(), dataset), atol=1e-5)


@torch.no_grad()
def test_the_cognition_token_is_the_last_position_after_the_final_norm(cogact: Path) -> None:
    policy = load_policy(checkpoint=cogact, dataset=BRIDGE)
    assert isinstance(policy.model, CogAct)
    reference = Reference(PARTS, NORM_EPS["cogact"])
    pixels, prompt = policy.processing.images(observation())[0], torch.tensor([WORDS[1:-1]])
    expected = reference.hidden(pixels, [*WORDS, tiny.EOS])[:, -1]
    assert expected.square().mean().sqrt() == pytest.approx(1, abs=0.2)
    visual = policy.model.encode(pixels[None])
    torch.testing.assert_close(visual, reference.visual(pixels), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(policy.model.prefill(visual, prompt, None), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_openvla_says_the_words_its_formulas_say(openvla: Path) -> None:
    policy = load_policy(checkpoint=openvla, dataset=BRIDGE, recipe="reference")
    model = policy.model
    assert isinstance(model, OpenVla)
    reference = Reference(in_bfloat16(PARTS), NORM_EPS["openvla"])
    pixels, prompt = policy.processing.images(observation())[0], torch.tensor([WORDS[1:-1]])
    expected = reference.decode(pixels, WORDS)
    prefilled, words = model.prefill(model.encode(pixels[None]), prompt, None), []
    for _ in expected:  # among all words: random weights say few of the action words that decoders are held to
        words.append(int(model.logits(prefilled.hidden[0, -1]).argmax()))
        prefilled = model.extend(prefilled, torch.tensor([words[-1:]]))
    assert words == expected
    edges = np.linspace(-1, 1, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    normalised = centres[np.clip(32000 - np.array([expected]) - 1, 0, 254)]
    chunk = policy.infer(observation())
    assert chunk.actions.shape == (1, 7)
    np.testing.assert_allclose(chunk.actions, physical(normalised, BRIDGE), atol=1e-5)


@pytest.mark.parametrize("decoding", ["autoregressive", "jacobi"])
def test_the_exact_recipe_says_whatever_words_the_published_code_says(openvla: Path, decoding: str) -> None:
    policy = load_policy(checkpoint=openvla, dataset=BRIDGE, recipe="reference")
    chosen = {"execution": {"method": "lean", "words": "every"}, "decoding": decoding}
    exact = policy.with_recipe(find({"denoising_steps": 10, "guidance_scale": 1.5, **chosen}))
    np.testing.assert_array_equal(exact.infer(observation()).actions, policy.infer(observation()).actions)
    assert find("exact").plugs["execution"] == exact.recipe.plugs["execution"]


@torch.no_grad()
def test_the_narrowest_published_head_has_four_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "DIT", 384)
    monkeypatch.setitem(tiny.DEPTHS, "dit", 6)
    monkeypatch.setitem(tiny.HEADS, "dit", 4)
    parts = tiny.random_parts()
    checkpoint = tiny.write_cogact(tmp_path / "run", parts)
    tiny.edit_json(checkpoint / "config.json", lambda c: c.update(action_model_type="DiT-S"))
    policy = load_policy(checkpoint=checkpoint, dataset=BRIDGE)
    cognition, noise = torch.randn(1, tiny.LANGUAGE), noise_of(policy, observation())
    expected = Reference(parts, NORM_EPS["cogact"]).sample(cognition, noise, 10, 1.5)
    torch.testing.assert_close(policy.stages.act(cognition, noise), expected, atol=1e-4, rtol=1e-4)


def noise_of(policy: VlaPolicy, seen: Observation) -> torch.Tensor:
    return policy._noise(seen.session, seen.step)


@pytest.mark.parametrize("layout", ["cogact", "openvla"])
def test_a_converted_checkpoint_acts_bit_for_bit_the_same(layout: str, tmp_path: Path, request: Any) -> None:
    published = load_policy(checkpoint=request.getfixturevalue(layout), dataset=BRIDGE)
    before = published.infer(observation()).actions
    stored = torch.float32 if layout == "cogact" else torch.bfloat16
    native.save(tmp_path / "native", published.model, published.processing, published._tokenizer, {}, stored)
    np.testing.assert_array_equal(load_policy(checkpoint=tmp_path / "native").infer(observation()).actions, before)


@pytest.mark.parametrize("layout", ["cogact", "openvla"])
def test_bfloat16_is_near_float32(layout: str, request: Any) -> None:
    checkpoint = request.getfixturevalue(layout)
    exact, rounded = (load_policy(checkpoint=checkpoint, dataset=BRIDGE, dtype=dtype) for dtype in ("fp32", "bf16"))
    pixels = exact.processing.images(observation())
    with torch.no_grad():
        ours, theirs = exact.model.encode(pixels), rounded.model.encode(pixels.bfloat16()).float()
    assert (ours - theirs).abs().max() < 0.05 * ours.abs().max()
    assert np.isfinite(rounded.infer(observation()).actions).all()


def test_the_hash_changes_with_the_dataset_and_with_the_weights(cogact: Path, damaged: Callable[[Path], Path]) -> None:
    first, second = (load_policy(checkpoint=cogact, dataset=key).spec.checkpoint for key in (BRIDGE, FRACTAL))
    assert first != second
    other = damaged(cogact)
    tiny.edit_pt(other, lambda parts: parts["action_model"]["net.final_layer.linear.weight"].add_(1))
    assert load_policy(checkpoint=other, dataset=BRIDGE).spec.checkpoint != first


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux to say what memory is taken")
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("cogact", "fp32"),
        ("cogact", "bf16"),
        ("openvla", "bf16"),
        ("openvla", "fp32"),
        ("own", "fp32"),
        ("own", "bf16"),
    ],
)
def test_loading_takes_the_memory_that_is_asked_for_before(
    layout: str, dtype: str, tmp_path: Path, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = request.getfixturevalue("cogact" if layout == "own" else layout)
    loaded = load_policy(checkpoint=source, dataset=BRIDGE, dtype=dtype)  # what is loaded on first use does not count
    how: dict[str, Any] = {"checkpoint": source, "dataset": BRIDGE, "dtype": dtype}
    if layout == "own":
        native.save(tmp_path / "own", loaded.model, loaded.processing, loaded._tokenizer, {})  # in float32
        how = {"checkpoint": tmp_path / "own", "dtype": dtype}
    needed = bytes_needed(loaded.model, DTYPES[dtype])
    for module, reader in ((published, "llama_words"), (native, "load_tokenizer")):  # as large for any weights
        monkeypatch.setattr(module, reader, lambda path: loaded._tokenizer)
    with watched() as peak:
        policy = load_policy(**how)
    assert policy.spec.horizon
    assert peak.extra < 1.2 * needed
    monkeypatch.setattr(memory, "available", lambda device: needed - 1)
    with pytest.raises(InputError, match=r"needs .* GB of memory in"):
        load_policy(**how)


def test_a_file_that_is_overwritten_later_changes_nothing(openvla: Path, damaged: Callable[[Path], Path]) -> None:
    checkpoint = damaged(openvla)
    policy = load_policy(checkpoint=checkpoint, dataset=BRIDGE, dtype="bf16")  # the dtype it is stored in
    before = policy.infer(observation()).actions
    with (checkpoint / tiny.SHARD).open("r+b") as file:
        file.seek(200_000)
        file.write(bytes(1_000_000))
    np.testing.assert_array_equal(policy.infer(observation()).actions, before)


def test_one_dataset_needs_no_key(tmp_path: Path) -> None:
    only = {BRIDGE: tiny.STATISTICS[BRIDGE]}
    assert load_policy(checkpoint=tiny.write_cogact(tmp_path / "run", PARTS, only)).spec.period == 0.2


@pytest.mark.parametrize("layout", ["cogact", "openvla"])
@pytest.mark.parametrize(("robot", "dataset"), [("widowx", BRIDGE), ("google_robot", FRACTAL)])
def test_the_robot_in_use_chooses_the_key(layout: str, robot: str, dataset: str, request: Any) -> None:
    directory = request.getfixturevalue(layout)
    chosen, named = load_policy(checkpoint=directory, robot=robot), load_policy(checkpoint=directory, dataset=dataset)
    assert chosen.processing == named.processing


@pytest.mark.parametrize("layout", ["cogact", "openvla"])
@pytest.mark.parametrize("dataset", [None, "bridge"])
def test_an_ambiguous_or_unknown_key_is_refused_with_the_keys(layout: str, dataset: str | None, request: Any) -> None:
    with pytest.raises(InputError, match=f"{BRIDGE}, {FRACTAL}"):
        load_policy(checkpoint=request.getfixturevalue(layout), dataset=dataset)


def test_a_checkpoint_of_our_own_takes_no_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"leave out dataset={BRIDGE}"):
        load_policy(checkpoint=save_small(tmp_path / "own"), dataset=BRIDGE)


def test_one_file_without_an_index_is_as_good_as_shards(openvla: Path, damaged: Callable[[Path], Path]) -> None:
    checkpoint = damaged(openvla)
    tensors = load_file(checkpoint / tiny.SHARD) | load_file(checkpoint / tiny.SHARD.replace("00001-", "00002-"))
    for path in (*checkpoint.glob("model-*"), checkpoint / "model.safetensors.index.json"):
        path.unlink()
    save_file(tensors, checkpoint / "model.safetensors")
    ours, theirs = (load_policy(checkpoint=path, dataset=BRIDGE).infer(observation()) for path in (checkpoint, openvla))
    np.testing.assert_array_equal(ours.actions, theirs.actions)


def test_statistics_of_fine_tuning_come_first(openvla: Path, damaged: Callable[[Path], Path]) -> None:
    checkpoint = damaged(openvla)
    (checkpoint / "dataset_statistics.json").write_text(json.dumps({BRIDGE: tiny.STATISTICS[FRACTAL]}))
    scale = load_policy(checkpoint=checkpoint).processing.action_range
    assert isinstance(scale, Range)
    assert list(scale.q99) == tiny.STATISTICS[FRACTAL]["action"]["q99"]
