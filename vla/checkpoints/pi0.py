"""pi0 as transformers saves it: config and processor config, safetensors in one file or shards, PaliGemma's tokenizer.

The processor's config holds the means and deviations of state and actions. Of the robot the directory says nothing
else: its cameras and its period come from the user.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PI0Config as PublishedConfig

from vla.api import InputError
from vla.checkpoints import published
from vla.checkpoints.checkpoint import BeforeWeights, Checkpoint, Choices, Layout
from vla.checkpoints.files import read_json
from vla.checkpoints.native import check_together
from vla.checkpoints.openvla import INDEX, WEIGHTS, read_shards, weight_files
from vla.checkpoints.pi0_names import fitting, ours
from vla.checkpoints.pi0_robot import Robot, gemma_words, processing, tokenizer_file
from vla.checkpoints.weights import check_finite, check_kinds, empty, fill
from vla.images import BORDER_AFTER, Resize
from vla.models.pi0 import FAMILY
from vla.models.pi0_config import Pi0Config
from vla.moments import Moments

CONFIG, PROCESSOR = "config.json", "processor_config.json"
_PARTS = {  # path in the config -> its model type, and what in it decides the result
    "vlm_config": ("paligemma", ()),
    "vlm_config.text_config": (
        "gemma",
        ("hidden_act", "rms_norm_eps", "rope_parameters", "attention_bias", "head_dim"),
    ),
    "vlm_config.vision_config": ("siglip_vision_model", ("hidden_act", "layer_norm_eps", "num_channels")),
    "dit_config": ("gemma", ("hidden_act", "rms_norm_eps", "rope_parameters", "attention_bias", "head_dim")),
}
_SHARED = ("num_hidden_layers", "num_key_value_heads", "head_dim")  # by the expert and the language model
_BICUBIC = 3  # Pillow's number


def recognises(directory: Path) -> bool:
    """Whether the config is of transformers' PI0."""
    if not (directory / CONFIG).exists():
        return False
    try:
        values = read_json(directory / CONFIG)
    except InputError:
        return False
    return values.get("model_type") == FAMILY.model_type and "architecture" not in values


def load(directory: Path, choices: Choices, before: BeforeWeights) -> Checkpoint:
    """Read a directory; the weights stay memory-mapped until they are moved or cast.

    Raises:
        InputError: naming the file, key or tensor that is missing, damaged, unexpected or wrongly shaped.
    """
    path = directory / PROCESSOR
    settings = read_json(path)
    state, action = (_moments(settings, part, path) for part in ("state", "actions"))
    said = _published_config(directory / CONFIG)
    resize = Resize(said.vlm_config.vision_config.image_size, BORDER_AFTER)
    _check_images(settings.get("image_processor", {}), resize.size, path)
    around = processing(Robot((), state, action), choices, resize, directory)
    robot = {"cameras": len(around.cameras), "state_dim": len(state), "action_dim": len(action)}
    config = _model_config(said, robot, directory / CONFIG)
    tokenizer = gemma_words(directory)
    check_together(directory, config, around, tokenizer)
    model = empty(FAMILY, config)
    before(model)
    tensors = read_shards(directory)
    check_kinds(directory, tensors)
    named = fitting(model.state_dict(), ours(tensors, directory), directory)
    check_finite(directory, tensors)
    fill(model, named)
    return Checkpoint(model, around, tokenizer, {"published": {"layout": "transformers", "dataset": choices.dataset}})


def _published_config(path: Path) -> Any:
    """The config with transformers' defaults where it is silent; no part of it may be of another kind.

    Raises:
        InputError: naming what is unknown, of another kind or wrong.
    """
    values = read_json(path)
    if unknown := sorted(values.keys() - PublishedConfig().to_dict().keys() - {"torch_dtype"}):
        raise InputError(f"{path} has unknown keys {unknown}")
    for part, (wanted, _) in _PARTS.items():
        inner: Any = values
        for key in part.split("."):
            inner = inner.get(key) or {} if isinstance(inner, Mapping) else inner
        if not isinstance(inner, Mapping) or inner.get("model_type", wanted) != wanted:
            raise InputError(f"{path}: {part} must be an object of model_type {wanted!r}, got {inner!s:.80}")
    try:
        return PublishedConfig(**values)
    except Exception as error:  # each check inside raises a kind of its own
        raise InputError(f"{path} is no config of pi0: {str(error).strip().partition(chr(10))[0]}") from error


def _model_config(said: Any, robot: dict[str, int], path: Path) -> Pi0Config:
    """Ours, after checking that it computes what the published one does."""
    text, vision, expert = said.vlm_config.text_config, said.vlm_config.vision_config, said.dit_config
    shared = [key for key in _SHARED if getattr(text, key) != getattr(expert, key)]
    if shared:
        raise InputError(f"{path}: the expert reads the language model's keys, but they differ in {shared}")
    config = Pi0Config(
        **robot,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        vision_width=vision.hidden_size,
        vision_depth=vision.num_hidden_layers,
        vision_heads=vision.num_attention_heads,
        vision_mlp_width=vision.intermediate_size,
        language_width=text.hidden_size,
        language_heads=text.num_attention_heads,
        language_mlp_width=text.intermediate_size,
        expert_width=expert.hidden_size,
        expert_heads=expert.num_attention_heads,
        expert_mlp_width=expert.intermediate_size,
        depth=text.num_hidden_layers,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        vocabulary=text.vocab_size,
        pad_id=text.pad_token_id,
        bos_id=text.bos_token_id,
        horizon=said.chunk_size,
        state_width=said.max_state_dim,
        action_width=said.max_action_dim,
        shortest_period=said.min_period,
        longest_period=said.max_period,
    )
    differing = _differing(said, config.published())
    if differing:
        raise InputError(f"{path} asks for what no published pi0 has: {'; '.join(differing)}")
    return config


def _differing(theirs: Any, our_config: Any) -> list[str]:
    found = []
    for part, (_, keys) in _PARTS.items():
        said, made = theirs, our_config
        for key in part.split("."):
            said, made = getattr(said, key), getattr(made, key)
        pairs = [(key, getattr(said, key), getattr(made, key)) for key in keys]
        found += [f"{part}.{key} is {a!r}, wanted {b!r}" for key, a, b in pairs if a != b]
    return found


def _moments(settings: Mapping[str, Any], part: str, path: Path) -> Moments:
    """Mean and deviation of the robot's numbers.

    Raises:
        InputError: if the processor was saved without, or they are wrong.
    """
    mean, std = settings.get(f"{part}_mean"), settings.get(f"{part}_std")
    if not isinstance(mean, list) or not isinstance(std, list):
        raise InputError(
            f"{path} has no {part}_mean and {part}_std, without which numbers mean nothing; "
            "give them to PI0Processor and save it again"
        )
    try:
        return Moments(tuple(mean), tuple(std), (True,) * len(mean))
    except InputError as error:
        raise InputError(f"{path}: {part}: {error}") from error


def _check_images(settings: Mapping[str, Any], size: int, path: Path) -> None:
    """Refuse another way with images than `PI0ImageProcessor`'s own."""
    usual = {
        "size": {"max_height": size, "max_width": size},
        "pad_size": {"height": size, "width": size},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": _BICUBIC,
        **dict.fromkeys(("do_resize", "do_rescale", "do_normalize", "do_pad"), True),
    }
    differing = [
        f"{key} is {settings[key]!r}, wanted {usual[key]!r}"
        for key in usual
        if settings.get(key, usual[key]) != usual[key]
    ]
    if differing:
        raise InputError(f"{path}: image_processor: {'; '.join(differing)}")


def _weights_hash(directory: Path, choices: Choices) -> str:
    described = [directory / CONFIG, directory / PROCESSOR, tokenizer_file(directory)]
    return published.sampled_hash(weight_files(directory), described, choices)


LAYOUT = Layout(
    looks_like=f"transformers' pi0 has {CONFIG}, {WEIGHTS} or {INDEX} with its shards, {PROCESSOR} and tokenizer.json",
    recognises=recognises,
    load=load,
    weights_hash=_weights_hash,
)
