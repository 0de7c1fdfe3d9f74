"""Tiny pi0 checkpoints in exactly the published layouts, and what transformers' own PI0 makes of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import models, normalizers
from torch import Tensor
from torch.nn import functional
from transformers import PI0ForConditionalGeneration

from vla.models.pi0_config import Pi0Config

WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", *(chr(code) for code in range(33, 127)), "▁", "\n"]
IMAGE_WORD = len(WORDS)  # has no row of the embedding table, as in PaliGemma
CONFIG = Pi0Config(
    image_size=28,
    patch_size=14,
    cameras=2,
    vision_width=72,
    vision_depth=2,
    vision_heads=1,
    vision_mlp_width=40,
    language_width=32,
    language_heads=2,
    language_mlp_width=48,
    expert_width=16,
    expert_heads=2,
    expert_mlp_width=24,
    depth=2,
    vocabulary=len(WORDS),
    horizon=5,
    state_dim=3,
    action_dim=7,
    state_width=10,
    action_width=9,
)
STATE = {"mean": [0.1, -0.2, 0.3], "std": [0.5, 1.5, 0.2]}
ACTION = {"mean": [0.01, 0.0, -0.02, 0.1, 0.0, -0.1, 0.6], "std": [0.02, 0.01, 0.03, 0.2, 0.1, 0.3, 0.4]}


def reference(seed: int = 0) -> PI0ForConditionalGeneration:
    """transformers' own model of these shapes, with word embeddings for the expert and the same weights everywhere."""
    published = CONFIG.published()
    published.dit_config.vocab_size = CONFIG.vocabulary  # pyright: ignore[reportAttributeAccessIssue,reportOptionalMemberAccess]
    model, random = PI0ForConditionalGeneration(published).eval(), np.random.default_rng(seed)
    weights = {name: torch.from_numpy(random.uniform(-0.35, 0.35, t.shape)) for name, t in model.state_dict().items()}
    model.load_state_dict(weights)
    return model


def our_names(model: PI0ForConditionalGeneration) -> dict[str, Tensor]:
    """The reference's tensors as our model calls them."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        for theirs, ours in (
            ("model.", "body."),
            ("embed_action_time.", "head.embed."),
            ("action_out_proj.", "head.out."),
        ):
            if name.startswith(theirs):
                renamed[ours + name.removeprefix(theirs)] = tensor
    del renamed["body.dit.embed_tokens.weight"]
    return renamed


def sampled(
    model: PI0ForConditionalGeneration, images: Tensor, prompt: Tensor, state: Tensor, noise: Tensor, masked: int = 0
) -> Tensor:
    """What transformers' own sampler makes of it, (batch, horizon, action_width).

    Args:
        model: as `reference` gave it.
        images: (batch, cameras, 3, height, width).
        prompt: (batch, words) without the first word, padded.
        state: (batch, state_dim), normalised.
        noise: (batch, horizon, action_width).
        masked: cameras from the last on whose tokens nothing attends to.
    """
    batch, cameras = images.shape[:2]
    visual = cameras * CONFIG.visual_tokens
    ids = torch.cat(
        [torch.full((batch, visual), CONFIG.vocabulary), torch.full((batch, 1), CONFIG.bos_id), prompt], dim=1
    )
    attended = (ids != CONFIG.pad_id).long()
    attended[:, visual - masked * CONFIG.visual_tokens : visual] = 0
    arguments: dict[str, Any] = {
        "state": functional.pad(state, (0, CONFIG.state_width - state.shape[1])),
        "input_ids": ids,
        "pixel_values": images,
        "pixel_attention_mask": torch.ones(batch, cameras, dtype=torch.bool),
        "attention_mask": attended,
        "noise": noise,
    }
    return model.sample_actions(**arguments)


def tokenizer() -> tokenizers.Tokenizer:
    """PaliGemma's special words at their ids, letters, the end of a line, and the word for an image after all."""
    made = tokenizers.Tokenizer(models.BPE({word: i for i, word in enumerate(WORDS)}, [], unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_special_tokens(["<image>"])
    return made


def prompt_of(instruction: str) -> Tensor:
    """(1, words) ids of the instruction and the end of the line after it."""
    return torch.tensor([[WORDS.index("▁" if letter == " " else letter) for letter in f"{instruction}\n"]])


def save_transformers(directory: Path, model: PI0ForConditionalGeneration) -> Path:
    """As `PI0ForConditionalGeneration.save_pretrained` and `PI0Processor.save_pretrained` write it, in shards."""
    model.save_pretrained(directory, max_shard_size="100KB")
    size = CONFIG.image_size
    processor = {
        "actions_mean": ACTION["mean"],
        "actions_std": ACTION["std"],
        "chunk_size": CONFIG.horizon,
        "image_processor": {
            **dict.fromkeys(("do_convert_rgb", "do_normalize", "do_pad", "do_rescale", "do_resize"), True),
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "PI0ImageProcessor",
            "image_seq_length": CONFIG.visual_tokens,
            "image_std": [0.5, 0.5, 0.5],
            "pad_size": {"height": size, "width": size},
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"max_height": size, "max_width": size},
        },
        "max_state_dim": CONFIG.state_width,
        "processor_class": "PI0Processor",
        "state_mean": STATE["mean"],
        "state_std": STATE["std"],
    }
    (directory / "processor_config.json").write_text(json.dumps(processor))
    tokenizer().save(str(directory / "tokenizer.json"))
    return directory


def save_lerobot(directory: Path, model: PI0ForConditionalGeneration) -> Path:
    """As LeRobot writes a policy and its two pipelines; the tied word embeddings stand under `lm_head`."""
    directory.mkdir()
    renames = {
        "model.vlm.language_model.embed_tokens.": "paligemma_with_expert.paligemma.lm_head.",
        "model.vlm.": "paligemma_with_expert.paligemma.model.",
        "model.dit.embed_tokens.": "paligemma_with_expert.gemma_expert.lm_head.",
        "model.dit.": "paligemma_with_expert.gemma_expert.model.",
        "embed_action_time.": "",
        "": "",
    }
    tensors = {}
    for name, tensor in model.state_dict().items():
        theirs = next(prefix for prefix in renames if name.startswith(prefix))
        published = renames[theirs] + name.removeprefix(theirs)
        published = published.replace("vision_tower.", "vision_tower.vision_model.")
        tensors[f"model.{published}"] = tensor.contiguous()
    save_file(tensors, directory / "model.safetensors")
    size = CONFIG.image_size
    features = {
        "observation.images.empty_camera_0": {"type": "VISUAL", "shape": [3, size, size]},
        "observation.images.base_0_rgb": {"type": "VISUAL", "shape": [3, 20, 30]},
        "observation.state": {"type": "STATE", "shape": [CONFIG.state_dim]},
        "observation.images.wrist": {"type": "VISUAL", "shape": [3, size, size]},
    }
    config = {
        "type": "pi0",
        "n_obs_steps": 1,
        "input_features": features,
        "output_features": {"action": {"type": "ACTION", "shape": [CONFIG.action_dim]}},
        "chunk_size": CONFIG.horizon,
        "n_action_steps": CONFIG.horizon,
        "max_state_dim": CONFIG.state_width,
        "max_action_dim": CONFIG.action_width,
        "image_resolution": [size, size],
        "empty_cameras": 1,
        "use_relative_actions": False,
        "action_feature_names": [f"joint_{i}.pos" for i in range(CONFIG.action_dim)],
        "tokenizer_max_length": 48,
    }
    (directory / "config.json").write_text(json.dumps(config))
    _save_pipelines(directory)
    (directory / "tokenizer").mkdir()
    tokenizer().save(str(directory / "tokenizer" / "tokenizer.json"))
    return directory


def _save_pipelines(directory: Path) -> None:
    modes = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    normalised: dict[str, Any] = {"eps": 1e-8, "norm_map": modes}
    before = "policy_preprocessor_step_6_normalizer_processor.safetensors"
    after = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    renamed = {"observation.images.top": "observation.images.base_0_rgb"}
    steps = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": renamed}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "pi0_new_line_processor", "config": {}},
        {"registry_name": "tokenizer_processor", "config": {"max_length": 48, "tokenizer_name": "tokenizer"}},
        {"registry_name": "device_processor", "config": {"device": "cpu"}},
        {"registry_name": "relative_actions_processor", "config": {"enabled": False}},
        {"registry_name": "normalizer_processor", "config": normalised, "state_file": before},
    ]
    backwards = [
        {"registry_name": "unnormalizer_processor", "config": normalised, "state_file": after},
        {"registry_name": "absolute_actions_processor", "config": {"enabled": False}},
        {"registry_name": "device_processor", "config": {"device": "cpu"}},
    ]
    for name, listed in (("policy_preprocessor", steps), ("policy_postprocessor", backwards)):
        (directory / f"{name}.json").write_text(json.dumps({"name": name, "steps": listed}))
    named = {"observation.state": STATE, "action": ACTION}
    tensors = {f"{key}.{which}": torch.tensor(numbers) for key, of in named.items() for which, numbers in of.items()}
    save_file(tensors, directory / before)
    save_file(tensors, directory / after)
