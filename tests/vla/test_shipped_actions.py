"""Shipped policies compute what the first version of the model computed, whatever families came since."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, ViTConfig, ViTModel

from vla.api import Observation
from vla.models.heads.diffusion import DiffusionHead
from vla.policy import PRETRAINED, load_policy, model_names, noise_seed
from vla.processing import Processing
from vla.tokenizer import load_tokenizer, prompt_ids

ASKED = (("put the spoon on the towel", 0), ("put carrot on plate", 3), ("Stack the green block", 7))
ARCHITECTURES = {
    name: json.loads((PRETRAINED / name / "config.json").read_text())["architecture"] for name in model_names()
}


def observation(name: str, number: int) -> Observation:
    random = np.random.default_rng(number)
    spec = load_policy(name).spec
    images = {c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in spec.cameras}
    state = random.uniform(0, 0.5, len(spec.state)).astype(np.float32)
    instruction, step = ASKED[number]
    return Observation(images, instruction, state, session="robot", step=step)


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name, sizes in ARCHITECTURES.items() if "head_width" in sizes])
@pytest.mark.parametrize("number", range(len(ASKED)))
def test_it_acts_as_its_parts_put_together_by_hand(name: str, number: int) -> None:
    """Up to rounding: on some processors the product of a single row depends on where in memory the weights lie."""
    seen = observation(name, number)
    np.testing.assert_allclose(load_policy(name).infer(seen).actions, by_hand(name, seen), rtol=0, atol=1e-6)


def parts(sizes: dict[str, Any]) -> dict[str, Any]:
    """The modules of the first version, under the prefixes of their tensors."""
    width, words = sizes["vision_width"], sizes["language_width"]
    vision = ViTConfig(
        image_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        hidden_size=width,
        num_hidden_layers=sizes["vision_depth"],
        num_attention_heads=sizes["vision_heads"],
        intermediate_size=4 * width,
        layer_norm_eps=1e-6,
    )
    language = LlamaConfig(
        vocab_size=sizes["vocabulary"],
        hidden_size=words,
        num_hidden_layers=sizes["language_depth"],
        num_attention_heads=sizes["language_heads"],
        num_key_value_heads=sizes["language_heads"],
        intermediate_size=sizes["language_mlp_width"],
        pad_token_id=None,
    )
    head = {name: sizes[f"head_{name}"] for name in ("width", "depth", "heads")}
    head |= {name: sizes[name] for name in ("action_dim", "horizon", "train_steps", "prediction")}
    return {
        "vision.vit": ViTModel(vision, add_pooling_layer=False),
        "projector": nn.Sequential(nn.Linear(width, words), nn.GELU(), nn.Linear(words, words)),
        "state_projector": nn.Linear(sizes["state_dim"], words),
        "language.llama": LlamaModel(language),
        "head": DiffusionHead(condition_dim=words, **head),
    }


def by_hand(name: str, seen: Observation) -> np.ndarray:
    """The first version's computation, written without our models."""
    sizes, directory = ARCHITECTURES[name], PRETRAINED / name
    tensors = load_file(directory / "model.safetensors")
    robots = json.loads((directory / "processing.json").read_text())["robots"]
    processing = Processing.from_dict(next(iter(robots.values())))
    made = parts(sizes)
    for prefix, part in made.items():
        part.load_state_dict({n[len(prefix) + 1 :]: t for n, t in tensors.items() if n.startswith(f"{prefix}.")})
        part.eval()
    vision, projector, state_projector, llama, head = made.values()
    patches = vision(pixel_values=processing.images(seen)[0]).last_hidden_state[:, 1:]
    state = processing.state_numbers(seen)
    assert state is not None
    words = prompt_ids(load_tokenizer(directory / "tokenizer.json"), processing.text(seen.instruction), 99)

    def embedded(ids: Tensor) -> Tensor:
        return llama.get_input_embeddings()(ids)

    first, last = torch.tensor([[sizes["bos_id"]]]), torch.tensor([[sizes["cognition_id"]]])
    sequence = [embedded(first), projector(patches), state_projector(state)[:, None], embedded(words), embedded(last)]
    cognition = llama(inputs_embeds=torch.cat(sequence, dim=1), use_cache=False).last_hidden_state[:, -1]
    noise = torch.randn(
        1,
        sizes["horizon"],
        sizes["action_dim"],
        generator=torch.Generator().manual_seed(noise_seed(seen.session, seen.step)),
    )
    return processing.physical_actions(head.sample(cognition, noise, 10, 1.5)[0].numpy())
