"""Damaged and foreign checkpoints in the published layouts are refused, by the name of what is wrong."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vla import published as tiny
from vla.api import InputError
from vla.policy import load_policy

PARTS = tiny.random_parts()
BRIDGE = "bridge_orig"
QKV = "dino_featurizer.blocks.1.attn.qkv.weight"


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda parts: parts["vision_backbone"].pop(QKV), rf"missing \['vision_backbone\.{QKV}'\]; unexpected \[\]"),
        (
            lambda parts: parts["vision_backbone"].pop("siglip_featurizer.attn_pool.q.bias"),
            r"missing \['vision_backbone\.siglip_featurizer\.attn_pool\.q\.bias'\]",
        ),
        (lambda parts: parts["projector"].update(extra=torch.zeros(1)), r"unexpected \['projector\.extra'\]"),
        (
            lambda parts: parts["vision_backbone"].update({QKV: torch.zeros(3, 5)}),
            rf"{QKV} is float32 \(3, 5\), which does not make vision\.dino\.",
        ),
        (
            lambda parts: parts["projector"].update({"projector.0.bias": torch.zeros(3)}),
            r"projector\.0\.bias is float32 \(3,\)",
        ),
        (
            lambda parts: parts["projector"].update({"projector.0.bias": torch.zeros(3, dtype=torch.int64)}),
            r"projector\.0\.bias is int64",
        ),
        (lambda parts: parts["vision_backbone"].pop("dino_featurizer.reg_token"), r"dino_featurizer\.reg_token"),
        (lambda parts: parts.pop("action_model"), "parts action_model, .*looks like a Prismatic VLM or an OpenVLA"),
        (lambda parts: parts.pop("projector"), "no model with the parts projector, "),
        (lambda parts: parts["action_model"].pop("net.positional_embedding"), r"no DiT.*positional_embedding"),
        (lambda parts: parts.update(projector=[1, 2]), "holds no model"),
        (
            lambda parts: parts["projector"].update({"projector.0.bias": 3}),
            r"no tensor: \['projector\.projector\.0",
        ),
        (
            lambda parts: parts["vision_backbone"][QKV].view(-1)[7:8].fill_(torch.nan),
            rf"not finite in \['vision_backbone\.{QKV}'\]",
        ),
        (
            lambda parts: parts["action_model"]["net.x_embedder.linear.bias"].fill_(-torch.inf),
            r"not finite in \['action_model\.net\.x_embedder\.linear\.bias'\]",
        ),
    ],
)
def test_damaged_tensors_of_a_run_are_named(
    cogact: Path, damaged: Callable[[Path], Path], edit: Callable[[Any], object], complaint: str
) -> None:
    checkpoint = damaged(cogact)
    tiny.edit_pt(checkpoint, edit)
    with pytest.raises(InputError, match=complaint):
        load_policy(checkpoint=checkpoint, dataset=BRIDGE)


def test_an_average_of_the_head_is_left_out_as_its_own_loader_does(
    cogact: Path, damaged: Callable[[Path], Path]
) -> None:
    checkpoint = damaged(cogact)
    tiny.edit_pt(checkpoint, lambda parts: parts.update(ema_diffusion={"net.extra": torch.zeros(1)}))
    assert load_policy(checkpoint=checkpoint, dataset=BRIDGE).spec.horizon == 16


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Surprise:
    """What a .pt file may not hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must never run",)


def with_code(run: Path) -> None:
    torch.save({"model": {"projector": Surprise()}}, run / "checkpoints" / tiny.PT)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda run: cut(run / "checkpoints" / tiny.PT), "damaged"),
        (with_code, "damaged or holds no model"),
        (lambda run: torch.save({"state_dict": {}}, run / "checkpoints" / tiny.PT), "no model with the parts"),
        (
            lambda run: shutil.copy(run / "checkpoints" / tiny.PT, run / "checkpoints" / "b.pt"),
            r"one \.pt file.*b\.pt, step",
        ),
        (lambda run: (run / "tokenizer.json").unlink(), r"tokenizer\.json is missing: copy"),
        (lambda run: shutil.copy("vla/pretrained/tiny/tokenizer.json", run), "is not Llama's tokenizer: '</s>'|'▁'"),
        (lambda run: (run / "dataset_statistics.json").unlink(), "dataset_statistics"),
        (lambda run: tiny.edit_json(run / "dataset_statistics.json", lambda s: s[BRIDGE].clear()), "no `action`"),
        (lambda run: tiny.edit_json(run / "dataset_statistics.json", lambda s: s[BRIDGE]["action"].pop("q99")), "q99"),
        (
            lambda run: tiny.edit_json(
                run / "dataset_statistics.json", lambda s: s[BRIDGE]["action"].update(q01=[0.0] * 6)
            ),
            "differ in length",
        ),
        (
            lambda run: tiny.edit_json(run / "config.json", lambda c: c["vla"].update(base_vlm="siglip-224px+7b")),
            "siglip-2",
        ),
        (lambda run: tiny.edit_json(run / "config.json", lambda c: c.pop("vla")), "base_vlm"),
        (
            lambda run: tiny.edit_json(run / "config.json", lambda c: c["vla"].update(base_vlm=["a"])),
            r"base_vlm \['a'\]",
        ),
        (lambda run: tiny.edit_json(run / "config.json", lambda c: c.update(past_action_window_size=1)), "past_action"),
        (lambda run: tiny.edit_json(run / "config.json", lambda c: c.update(future_action_window_size=7)), "is 7, wan"),
        (
            lambda run: tiny.edit_json(run / "config.json", lambda c: c.update(action_dim=14)),
            "is 14, wanted 7",
        ),
        (
            lambda run: tiny.edit_json(run / "config.json", lambda c: c.update(action_model_type="DiT-B")),
            r"action_model_type is 'DiT-B', the tensors say .*'head_width': 128.*known: .*DiT-S",
        ),
        (lambda run: tiny.edit_json(run / "config.json", lambda c: c.update(action_model_type=3)), "model_type is 3"),
    ],
)
def test_damaged_files_of_a_run_are_named(
    cogact: Path, damaged: Callable[[Path], Path], damage: Callable[[Path], object], complaint: str, capsys: Any
) -> None:
    checkpoint = damaged(cogact)
    damage(checkpoint)
    with pytest.raises(InputError, match=complaint):
        load_policy(checkpoint=checkpoint, dataset=BRIDGE)
    assert "never" not in capsys.readouterr().out


def text(**config: Any) -> Callable[[Path], object]:
    """Changes what a directory says about its language model."""
    return lambda model: tiny.edit_json(model / "config.json", lambda c: c["text_config"].update(config))


def said(**config: Any) -> Callable[[Path], object]:
    """Changes what a directory says."""
    return lambda model: tiny.edit_json(model / "config.json", lambda c: c.update(config))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (text(rope_theta=500000.0), r"text_config\.rope_theta is 500000\.0, wanted 10000\.0"),
        (text(rope_scaling={"type": "linear", "factor": 2.0}), "rope_scaling is .*linear"),
        (text(rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0}), "rope_parameters is .*yarn"),
        (text(num_attention_heads=2, num_key_value_heads=1), "num_key_value_heads is 1, wanted 2"),
        (text(num_attention_heads=3), "language_width"),
        (text(num_attention_heads="1"), "num_attention_heads must be a whole number"),
        (text(head_dim=32), "head_dim is 32, wanted 128"),
        (text(hidden_act="gelu"), "hidden_act is 'gelu', wanted 'silu'"),
        (text(attention_bias=True), "attention_bias is True"),
        (text(tie_word_embeddings=True), "tie_word_embeddings is True"),
        (text(vocab_size=32000), "vocab_size is 32000, wanted 32064"),
        (text(intermediate_size=11008), "intermediate_size is 11008, wanted 96"),
        (text(rms_norm_eps="small"), "language_norm_eps must be"),
        (text(model_type="mistral"), "model_type is 'mistral'"),
        (said(text_config=[1]), "text_config must be an object"),
        (said(image_sizes=[224, 224]), r"image_sizes is \[224, 224\], wanted \[28, 28\]"),
        (said(timm_override_act_layers=[None, "quick_gelu"]), "timm_override_act_layers"),
        (said(timm_model_ids=["a", "b"]), "timm_model_ids"),
        (said(use_fused_vision_backbone=False), "use_fused_vision_backbone is False"),
        (said(llm_backbone_id="vicuna-v15-7b"), "llm_backbone_id is 'vicuna-v15-7b', wanted 'llama2-7b-pure'"),
        (said(pad_to_multiple_of="64"), "pad_to_multiple_of must be a whole number"),
        (said(n_action_bins="256"), "bins must be a whole number"),
    ],
)
def test_a_config_that_asks_for_another_result_is_refused_by_the_field(
    openvla: Path, damaged: Callable[[Path], Path], damage: Callable[[Path], object], complaint: str
) -> None:
    checkpoint = damaged(openvla)
    damage(checkpoint)
    with pytest.raises(InputError, match=complaint):
        load_policy(checkpoint=checkpoint, dataset=BRIDGE)


def test_the_heads_of_the_language_model_are_those_of_the_config(
    openvla: Path, damaged: Callable[[Path], Path]
) -> None:
    checkpoint = damaged(openvla)
    text(num_attention_heads=2, num_key_value_heads=2)(checkpoint)
    assert load_policy(checkpoint=checkpoint, dataset=BRIDGE).model.config.language_heads == 2


def test_weights_that_are_no_numbers_are_named(openvla: Path, damaged: Callable[[Path], Path]) -> None:
    checkpoint = damaged(openvla)
    broken: list[str] = []

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        broken.append(min(tensors))
        tensors[broken[0]].view(-1)[-1] = torch.inf

    tiny.edit_shard(checkpoint, damage)
    with pytest.raises(InputError, match=rf"not finite in \['{broken[0]}'\]"):
        load_policy(checkpoint=checkpoint, dataset=BRIDGE)


SCALE = "vision_backbone.featurizer.blocks.0.ls1.scale_factor"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda model: (model / tiny.SHARD).unlink(), tiny.SHARD),
        (lambda model: cut(model / tiny.SHARD), tiny.SHARD),
        (lambda model: tiny.edit_shard(model, lambda tensors: tensors.popitem()), "shards lack tensors"),
        (
            lambda model: tiny.edit_shard(model, lambda tensors: tensors.update(stray=torch.zeros(1))),
            r"missing \[\]; unexpected \['stray'\]",
        ),
        (
            lambda model: tiny.edit_json(
                model / "model.safetensors.index.json", lambda i: i["weight_map"].update(a="../b")
            ),
            "outside of its directory",
        ),
        (lambda model: tiny.edit_json(model / "model.safetensors.index.json", lambda i: i.clear()), "weight_map"),
        (
            lambda model: tiny.edit_json(model / "config.json", lambda c: c["text_config"].pop("num_hidden_layers")),
            "num_hidden_layers is 32, wanted 2",
        ),
        (
            lambda model: tiny.edit_json(model / "config.json", lambda c: c.update(image_resize_strategy="x")),
            "resize_strat",
        ),
        (
            lambda model: tiny.edit_json(model / "config.json", lambda c: c.update(vision_backbone_id="clip")),
            "vision_backbone_id is 'clip', wanted 'dinosiglip",
        ),
        (lambda model: tiny.edit_json(model / "config.json", lambda c: c.update(norm_stats=[])), "norm_stats"),
        (lambda model: tiny.edit_json(model / "config.json", lambda c: c.update(n_action_bins=0)), "bins"),
    ],
)
def test_damaged_files_of_a_hugging_face_directory_are_named(
    openvla: Path, damaged: Callable[[Path], Path], damage: Callable[[Path], object], complaint: str
) -> None:
    checkpoint = damaged(openvla)
    damage(checkpoint)
    with pytest.raises(InputError, match=complaint):
        load_policy(checkpoint=checkpoint, dataset=BRIDGE)


@pytest.mark.parametrize(
    ("holds", "family"),
    [
        ({"paligemma_with_expert.paligemma.x": torch.zeros(1)}, "pi0"),
        ({"model": {"vision_backbone.featurizer.x": torch.zeros(1)}}, "OpenVLA as Hugging Face keeps it"),
        ({"language.llama.x": torch.zeros(1), "head.net.x": torch.zeros(1)}, "a CogACT of our own"),
        (
            {"model": {"language.llama.x": torch.zeros(1), "language.lm_head.x": torch.zeros(1)}},
            "an OpenVLA of our own",
        ),
        ({"model": {"body.dit.x": torch.zeros(1)}}, "a pi0 of our own"),
        ({"state_dict": {"x": torch.zeros(1)}}, "none of the families"),
        ([torch.zeros(1)], "none of the families"),
    ],
)
def test_a_flat_file_says_what_it_looks_like(
    cogact: Path, damaged: Callable[[Path], Path], holds: Any, family: str
) -> None:
    checkpoint = damaged(cogact)
    path = checkpoint / "checkpoints" / tiny.PT
    path.unlink()
    torch.save(holds, path)
    with pytest.raises(InputError, match=f"so it is no CogACT; it looks like {family}"):
        load_policy(checkpoint=checkpoint, dataset=BRIDGE)


def foreign() -> Iterator[tuple[dict[str, torch.Tensor], str]]:
    one = torch.zeros(1)
    yield {"paligemma_with_expert.paligemma.x": one}, "it looks like pi0"
    yield {"vision.vit.x": one}, "it looks like a checkpoint of our own"
    yield {"vision.vit.x": one, "head.net.x": one}, "it looks like a CogACT of our own"
    yield {"model.layers.0.x": one}, "it looks like none of the families"
    yield {f"action_model.{n}": tensor for n, tensor in PARTS["action_model"].items()}, "looks like a CogACT run"


@pytest.mark.parametrize(("tensors", "complaint"), list(foreign()))
def test_weights_of_another_family_say_which(tmp_path: Path, tensors: dict[str, Any], complaint: str) -> None:
    checkpoint = tiny.write_openvla(tmp_path / "model", tensors)
    with pytest.raises(InputError, match=complaint):
        load_policy(checkpoint=checkpoint, dataset=BRIDGE)


def test_a_published_layout_has_no_untrained_model(cogact: Path) -> None:
    with pytest.raises(InputError, match=r"init=random is for .*cogact_base"):
        load_policy(checkpoint=cogact, init="random")


def test_a_robot_nobody_knows_is_not_guessed(tmp_path: Path) -> None:
    checkpoint = tiny.write_cogact(tmp_path / "run", PARTS, {"my_robot": tiny.STATISTICS[BRIDGE]})
    with pytest.raises(InputError, match=r"'my_robot'.*camera=<name>.*known: .*bridge_orig"):
        load_policy(checkpoint=checkpoint)


def test_a_directory_like_no_layout_is_refused_with_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(
        InputError, match=r"CogACT's has .*\.pt.*our own has .*OpenVLA's has config\.json with norm_stats"
    ):
        load_policy(checkpoint=tmp_path)
