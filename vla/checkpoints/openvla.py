"""OpenVLA as Hugging Face keeps it: `config.json` with `norm_stats`, safetensors (shards or one), `tokenizer.json`.

Config and names: openvla/openvla `prismatic/extern/hf/` and `vla-scripts/extern/convert_openvla_weights_to_hf.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vla.api import InputError
from vla.checkpoints import published
from vla.checkpoints.checkpoint import BeforeWeights, Checkpoint, Choices, Layout
from vla.checkpoints.files import read_json, read_tensors
from vla.checkpoints.native import check_together
from vla.checkpoints.prismatic import HUGGING_FACE, converted, sizes
from vla.checkpoints.weights import check_finite, check_kinds, empty, fill
from vla.models.config import check_whole
from vla.models.openvla import FAMILY, OpenVlaConfig

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_BACKBONE = "dinosiglip-vit-so-224px"
_TEXT = {  # LlamaConfig's defaults, where `text_config` is silent
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 32000,
}
_TEXT_ALWAYS = {  # no other value is computed here
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
_ALWAYS = {
    "vision_backbone_id": _BACKBONE,
    "llm_backbone_id": "llama2-7b-pure",
    "use_fused_vision_backbone": True,
    "timm_model_ids": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"],
    "timm_override_act_layers": [None, None],
}
_SAID = ("vision_backbone_id", "llm_backbone_id")  # silence means another one: PrismaticConfig's defaults
_PADDING = 64  # rows of the word table beyond the words: PrismaticConfig's pad_to_multiple_of


def recognises(directory: Path) -> bool:
    """Whether the config has OpenVLA's statistics beside Hugging Face's weights."""
    if not (directory / CONFIG).exists() or not ((directory / INDEX).exists() or (directory / WEIGHTS).exists()):
        return False
    try:
        return {"norm_stats", "vision_backbone_id"} <= read_json(directory / CONFIG).keys()
    except InputError:
        return False


def load(directory: Path, choices: Choices, before: BeforeWeights) -> Checkpoint:
    """Read a Hugging Face directory; the weights stay memory-mapped until they are moved or cast.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    path = directory / CONFIG
    values = read_json(path)
    statistics = _statistics(directory, values)
    key, action = published.choose(statistics, choices, path)
    scale = published.action_range(action, path)
    tensors = read_shards(directory)
    check_kinds(directory, tensors)
    config = _model_config(values, tensors, directory, len(scale.q01))
    strategy = values.get("image_resize_strategy", "letterbox")  # PrismaticConfig's default
    processing = published.processing(key, scale, choices, config.image_size, strategy)
    tokenizer = published.llama_words(directory)
    check_together(directory, config, processing, tokenizer)
    model = empty(FAMILY, config)
    before(model)
    named = converted(model.state_dict(), tensors, HUGGING_FACE, directory)
    check_finite(directory, tensors)
    fill(model, named)
    return Checkpoint(
        model, processing, tokenizer, {"published": {"base_vlm": values.get("_name_or_path"), "dataset": key}}
    )


def read_shards(directory: Path) -> dict[str, Tensor]:
    """All tensors, memory-mapped.

    Raises:
        InputError: if a shard is missing or damaged, or lacks a tensor that the index says it has.
    """
    tensors: dict[str, Tensor] = {}
    for path in weight_files(directory):
        tensors |= read_tensors(path)
    listed = _index(directory)
    if lost := sorted(listed.keys() - tensors.keys()):
        raise InputError(f"{directory}: the shards lack tensors that {INDEX} lists: {lost}")
    return tensors


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files: those that the index names, or the only one."""
    names = sorted(set(_index(directory).values())) or [WEIGHTS]
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InputError(f"{directory / INDEX} names files outside of its directory: {outside}")
    return [directory / name for name in names]


def _index(directory: Path) -> Mapping[str, str]:
    """Tensor -> file; empty if there is no index."""
    path = directory / INDEX
    if not path.exists():
        return {}
    listed = read_json(path).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise InputError(f"{path} has no weight_map from tensors to files")
    return listed


def _statistics(directory: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Of the config; fine-tuning writes its own beside it, which OpenVLA's server prefers."""
    beside = directory / published.STATISTICS
    statistics = read_json(beside) if beside.exists() else values["norm_stats"]
    if not isinstance(statistics, dict) or not statistics:
        raise InputError(f"{directory / CONFIG}: norm_stats must be an object with a key for each dataset")
    return statistics


def _model_config(
    values: dict[str, Any], tensors: dict[str, Tensor], directory: Path, action_dim: int
) -> OpenVlaConfig:
    path, text = directory / CONFIG, values.get("text_config") or {}
    if not isinstance(text, Mapping):
        raise InputError(f"{path}: text_config must be an object, got {text!r:.80}")
    text = _TEXT | dict(text)
    padding, heads = values.get("pad_to_multiple_of", _PADDING), text["num_attention_heads"]
    check_whole(f"{path}: pad_to_multiple_of", padding, 0)
    check_whole(f"{path}: text_config.num_attention_heads", heads, 1)
    found = sizes(tensors, HUGGING_FACE, directory, heads)
    if differing := _differing(values, text, found):
        raise InputError(f"{path} asks for what the weights or this reader do not do: {'; '.join(differing)}")
    eps = text["rms_norm_eps"]
    more = {
        "language_norm_eps": float(eps) if type(eps) is int else eps,
        "cameras": 1,
        "action_dim": action_dim,
        "action_words": found["vocabulary"] - padding,
        "bins": values.get("n_action_bins", 256),
    }
    try:
        return OpenVlaConfig.from_dict(found | more)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _differing(values: Mapping[str, Any], text: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Fields that change the result and are not what is computed from the tensors, by name."""
    heads = text["num_attention_heads"]
    of_text: dict[str, Any] = _TEXT_ALWAYS | {
        "hidden_size": found["language_width"],
        "intermediate_size": found["language_mlp_width"],
        "num_hidden_layers": found["language_depth"],
        "num_key_value_heads": heads,
        "head_dim": found["language_width"] // heads,
        "vocab_size": found["vocabulary"],
    }
    wanted = {**_ALWAYS, "image_sizes": [found["image_size"]] * 2}
    pairs = [(key, values.get(key, None if key in _SAID else made), made) for key, made in wanted.items()]
    pairs += [(f"text_config.{key}", text.get(key, made), made) for key, made in of_text.items()]
    optional = (
        "use_fused_vision_backbone",
        "text_config.num_key_value_heads",
        "text_config.head_dim",
        "rope_parameters",
    )
    return [
        f"{key} is {said!r}, wanted {made!r}"
        for key, said, made in pairs
        if said != made and not (said is None and key.endswith(optional))
    ]


def _weights_hash(directory: Path, choices: Choices) -> str:
    described = [directory / CONFIG, directory / published.TOKENIZER]
    beside = directory / published.STATISTICS
    return published.sampled_hash(
        weight_files(directory), [*described, *([beside] if beside.exists() else [])], choices
    )


LAYOUT = Layout(
    looks_like=f"OpenVLA's has {CONFIG} with norm_stats, {WEIGHTS} or {INDEX} with its shards, {published.TOKENIZER}",
    recognises=recognises,
    load=load,
    weights_hash=_weights_hash,
)
