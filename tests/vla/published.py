"""Tiny CogACT and OpenVLA checkpoints in exactly the published layouts."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers import models, normalizers
from torch import Tensor

PATCH, IMAGE, REGISTERS = 14, 28, 4
DINO, SIGLIP, SIGLIP_MLP, LANGUAGE, LANGUAGE_MLP, DIT = 128, 144, 160, 128, 96, 128
DEPTHS = {"dino": 3, "siglip": 3, "llm": 2, "dit": 2}
HEADS = {"dino": 2, "siglip": 2, "llm": 1, "dit": 2}
ROWS, WORDS, EMPTY_WORD, BOS, EOS = 32064, 32000, 29871, 1, 2
HORIZON, ACTIONS = 16, 7
PT, SHARD = "step-020000-epoch-01-loss=0.0123.pt", "model-00001-of-00002.safetensors"
STATISTICS: dict[str, Any] = {
    "bridge_orig": {
        "action": {
            "q01": [-0.0287, -0.0417, -0.0261, -0.0809, -0.0929, -0.2072, 0.0],
            "q99": [0.0283, 0.0409, 0.0402, 0.0819, 0.0779, 0.2038, 1.0],
            "mask": [True] * 6 + [False],
        }
    },
    "fractal20220817_data": {
        "action": {
            "q01": [-0.2245, -0.1482, -0.2316, -0.3518, -0.4193, -0.4364, 0.0],
            "q99": [0.1782, 0.1494, 0.2184, 0.5893, 0.3527, 0.4480, 1.0],
            "mask": [True] * 6 + [False],
        }
    },
}


def tokenizer() -> tokenizers.Tokenizer:
    """Llama's special words at Llama's ids, bytes, letters, and nothing else of use in 32000 words."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [chr(code) for code in range(33, 127)]
    words += letters
    words += [f"<unused{i}>" for i in range(WORDS - len(words))]
    words[EMPTY_WORD] = "▁"
    vocabulary = {word: i for i, word in enumerate(words)}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return made


def random_parts(seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """The dictionaries of a CogACT .pt file."""
    generator = torch.Generator().manual_seed(seed)

    def block(width: int, mlp: int, scale: bool) -> dict[str, tuple[int, ...]]:
        shapes = {"norm1": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width), "norm2": (width,)}
        shapes |= {"mlp.fc1": (mlp, width), "mlp.fc2": (width, mlp)}
        named = {f"{n}.weight": s for n, s in shapes.items()} | {f"{n}.bias": s[:1] for n, s in shapes.items()}
        return named | ({"ls1.gamma": (width,), "ls2.gamma": (width,)} if scale else {})

    def tower(width: int, mlp: int, depth: int, scale: bool) -> dict[str, tuple[int, ...]]:
        patches = (IMAGE // PATCH) ** 2
        shapes = {"pos_embed": (1, patches, width), "patch_embed.proj.weight": (width, 3, PATCH, PATCH)}
        shapes |= {"patch_embed.proj.bias": (width,), "norm.weight": (width,), "norm.bias": (width,)}
        for i in range(depth):
            shapes |= {f"blocks.{i}.{name}": shape for name, shape in block(width, mlp, scale).items()}
        return shapes

    dino = tower(DINO, 4 * DINO, DEPTHS["dino"], True)
    dino |= {"cls_token": (1, 1, DINO), "reg_token": (1, REGISTERS, DINO)}
    siglip = tower(SIGLIP, SIGLIP_MLP, DEPTHS["siglip"], False)
    pool = {"q": (SIGLIP, SIGLIP), "kv": (2 * SIGLIP, SIGLIP), "proj": (SIGLIP, SIGLIP), "norm": (SIGLIP,)}
    pool |= {"mlp.fc1": (SIGLIP_MLP, SIGLIP), "mlp.fc2": (SIGLIP, SIGLIP_MLP)}
    siglip |= {f"attn_pool.{n}.weight": s for n, s in pool.items()}
    siglip |= {f"attn_pool.{n}.bias": s[:1] for n, s in pool.items()}
    siglip["attn_pool.latent"] = (1, 1, SIGLIP)
    fused = DINO + SIGLIP
    projector = {"0": (4 * fused, fused), "2": (LANGUAGE, 4 * fused), "4": (LANGUAGE, LANGUAGE)}
    layer = {f"self_attn.{p}_proj": (LANGUAGE, LANGUAGE) for p in "qkvo"}
    layer |= {"mlp.gate_proj": (LANGUAGE_MLP, LANGUAGE), "mlp.up_proj": (LANGUAGE_MLP, LANGUAGE)}
    layer |= {"mlp.down_proj": (LANGUAGE, LANGUAGE_MLP), "input_layernorm": (LANGUAGE,)}
    layer["post_attention_layernorm"] = (LANGUAGE,)
    llm: dict[str, tuple[int, ...]] = {"llm.model.embed_tokens.weight": (ROWS, LANGUAGE)}
    llm |= {"llm.model.norm.weight": (LANGUAGE,), "llm.lm_head.weight": (ROWS, LANGUAGE)}
    for i in range(DEPTHS["llm"]):
        llm |= {f"llm.model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    shapes = {
        "vision_backbone": {f"dino_featurizer.{n}": s for n, s in dino.items()}
        | {f"siglip_featurizer.{n}": s for n, s in siglip.items()},
        "projector": {f"projector.{n}.weight": s for n, s in projector.items()}
        | {f"projector.{n}.bias": s[:1] for n, s in projector.items()},
        "llm_backbone": llm,
        "action_model": _dit_shapes(),
    }
    return {part: {n: _random(n, s, generator) for n, s in named.items()} for part, named in shapes.items()}


def _dit_shapes() -> dict[str, tuple[int, ...]]:
    linears = {"history_embedder.linear": (DIT, ACTIONS), "x_embedder.linear": (DIT, ACTIONS)}
    linears |= {"t_embedder.mlp.0": (DIT, 256), "t_embedder.mlp.2": (DIT, DIT), "z_embedder.linear": (DIT, LANGUAGE)}
    linears["final_layer.linear"] = (ACTIONS, DIT)
    for i in range(DEPTHS["dit"]):
        linears |= {f"blocks.{i}.attn.qkv": (3 * DIT, DIT), f"blocks.{i}.attn.proj": (DIT, DIT)}
        linears |= {f"blocks.{i}.mlp.fc1": (4 * DIT, DIT), f"blocks.{i}.mlp.fc2": (DIT, 4 * DIT)}
    shapes: dict[str, tuple[int, ...]] = {f"net.{n}.weight": s for n, s in linears.items()}
    shapes |= {f"net.{n}.bias": s[:1] for n, s in linears.items()}
    return shapes | {"net.z_embedder.uncondition": (1, LANGUAGE), "net.positional_embedding": (HORIZON + 1, DIT)}


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=generator)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * values
    return values * (shape[-1] ** -0.5 if len(shape) == 2 else 0.1)


def write_cogact(directory: Path, parts: Mapping[str, Any], statistics: Mapping[str, Any] = STATISTICS) -> Path:
    """A run directory as CogACT's training writes it, with Llama's tokenizer beside."""
    (directory / "checkpoints").mkdir(parents=True)
    vla = {"type": "prism-dinosiglip-224px+oxe+diffusion", "base_vlm": "prism-dinosiglip-224px+7b"}
    run = {"vla": vla, "future_action_window_size": 15, "past_action_window_size": 0, "action_dim": 7, "use_ema": False}
    (directory / "config.json").write_text(json.dumps(run))
    (directory / "dataset_statistics.json").write_text(json.dumps(statistics))
    torch.save({"model": parts}, directory / "checkpoints" / PT)
    tokenizer().save(str(directory / "tokenizer.json"))
    return directory


def hugging_face_names(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The trunk under the names of OpenVLA's converter."""
    made = {}
    for name, tensor in parts["vision_backbone"].items():
        name = name.replace("dino_featurizer", "featurizer").replace("siglip_featurizer", "fused_featurizer")
        made[f"vision_backbone.{name}".replace(".gamma", ".scale_factor")] = tensor
    for name, tensor in parts["projector"].items():
        for number, layer in (("0", "fc1"), ("2", "fc2"), ("4", "fc3")):
            name = name.replace(f"projector.{number}.", f"projector.{layer}.")
        made[name] = tensor
    for name, tensor in parts["llm_backbone"].items():
        made[name.replace("llm.", "language_model.", 1)] = tensor
    return made


def write_openvla(directory: Path, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    """A Hugging Face directory with two shards in bfloat16, as OpenVLA's converter writes it."""
    directory.mkdir(parents=True)
    text = {"model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": ROWS}
    text |= {"hidden_size": LANGUAGE, "num_hidden_layers": DEPTHS["llm"], "num_attention_heads": HEADS["llm"]}
    text["intermediate_size"] = LANGUAGE_MLP
    values = {
        "architectures": ["OpenVLAForActionPrediction"],
        "model_type": "openvla",
        "arch_specifier": "no-align+fused-gelu-mlp",
        "vision_backbone_id": "dinosiglip-vit-so-224px",
        "llm_backbone_id": "llama2-7b-pure",
        "use_fused_vision_backbone": True,
        "image_resize_strategy": "resize-naive",
        "image_sizes": [IMAGE, IMAGE],
        "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
        "timm_override_act_layers": [None, None],
        "n_action_bins": 256,
        "pad_to_multiple_of": 64,
        "pad_token_id": 32000,
        "norm_stats": STATISTICS,
        "text_config": text,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(values | config))
    names = sorted(tensors)
    shards = {SHARD: names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, inside in shards.items():
        save_file({name: tensors[name].bfloat16().contiguous() for name in inside}, directory / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in shards.items() for name in inside}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    tokenizer().save(str(directory / "tokenizer.json"))
    return directory


def edit_pt(checkpoint: Path, edit: Callable[[Any], object]) -> None:
    """Change the parts in a run's .pt file."""
    path = checkpoint / "checkpoints" / PT
    holds = torch.load(path, weights_only=True)
    edit(holds["model"])
    path.unlink()
    torch.save(holds, path)


def edit_shard(checkpoint: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors in one shard."""
    tensors = {name: tensor.clone() for name, tensor in load_file(checkpoint / SHARD).items()}
    edit(tensors)
    save_file(tensors, checkpoint / SHARD)


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what a file says."""
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))
