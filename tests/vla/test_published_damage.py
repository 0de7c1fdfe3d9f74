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
        (lambda parts: parts.pop("action_model"), "no action_model.*looks like a Prismatic VLM or an OpenVLA"),
        (lambda parts: parts.pop("projector"), "no projector"),
        (lambda parts: parts["action_model"].pop("net.positional_embedding"), r"no DiT.*positional_embedding"),
        (lambda parts: parts.update(projector=[1, 2]), "holds no model"),
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
        (lambda run: torch.save({"state_dict": {}}, run / "checkpoints" / tiny.PT), "damaged or holds no model"),
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
            "says 32",
        ),
        (
            lambda model: tiny.edit_json(model / "config.json", lambda c: c.update(image_resize_strategy="x")),
            "resize_strat",
        ),
        (
            lambda model: tiny.edit_json(model / "config.json", lambda c: c.update(vision_backbone_id="clip")),
            "'clip' is not",
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


def foreign() -> Iterator[tuple[dict[str, torch.Tensor], str]]:
    one = torch.zeros(1)
    yield {"paligemma_with_expert.paligemma.x": one}, "it looks like pi0"
    yield {"vision.vit.x": one}, "it looks like a checkpoint of our own"
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
