"""A small member of every family with random weights, and observations that fit it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.vla.pi0_published import CONFIG as PI0
from tests.vla.small import TOKENIZER, small_config
from tests.vla.test_families import COGACT, OPENVLA
from vla import presets
from vla import recipe as recipes
from vla.api import Observation
from vla.checkpoints.checkpoint import Checkpoint
from vla.checkpoints.weights import empty, randomise
from vla.models import family
from vla.policy import VlaPolicy

CPU = torch.device("cpu")
MEMBERS: dict[str, tuple[str, Any]] = {
    "cogact_vit": ("cogact", small_config()),
    "cogact_dinosiglip": ("cogact", COGACT),
    "openvla": ("openvla", replace(OPENVLA, action_words=1024, bins=1000, horizon=2, mask_word=20, text_words=20)),
    "openvla_blocks": ("openvla", replace(OPENVLA, action_words=1024, bins=1000, horizon=4, mask_word=20)),
    "pi0": ("pi0", replace(PI0, vocabulary=512)),
}
GUIDED = {"denoising_steps": 10, "guidance_scale": 1.5}


def member(
    name: str, recipe: str | dict[str, Any] = "none", dtype: torch.dtype = torch.float32, **shape: Any
) -> VlaPolicy:
    """A policy around a small model, its weights random everywhere and so large that every input counts.

    Args:
        shape: numbers of the member's config that are to be others.
    """
    model_type, config = MEMBERS[name]
    config = replace(config, **shape)
    model = randomise(empty(family.find(model_type), config), CPU, torch.float32)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 2
            parameter.normal_(std=fan_in**-0.5, generator=random)
    loaded = Checkpoint(model, presets.processing_for(config), TOKENIZER, {})
    return VlaPolicy(loaded, recipes.find(recipe), name, "random", CPU, dtype)


def robots(policy: VlaPolicy, count: int = 3) -> list[Observation]:
    """Observations of several sessions; their instructions differ in length."""
    texts = ("put the spoon on the towel", "open drawer", "put the green block on the yellow basket")
    random, made = np.random.default_rng(0), []
    for number in range(count):
        images = {c.name: random.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in policy.spec.cameras}
        state = random.uniform(-1, 1, len(policy.spec.state)).astype(np.float32) if policy.spec.state else None
        made.append(Observation(images, texts[number % 3], state, session=f"robot-{number}", step=number))
    return made


def answered(policy: VlaPolicy, observations: Sequence[Observation]) -> Tensor:
    """(batch, horizon, A) normalised actions of one call, before they are clipped: a random model's leave [-1, 1]."""
    stages, kept = policy.stages, []

    def act(prefilled: Any, noise: Tensor) -> Tensor:
        kept.append(stages.act(prefilled, noise))
        return kept[-1]

    policy.stages = replace(stages, act=act)
    try:
        policy.infer_batch(observations)
    finally:
        policy.stages = stages
    return kept[-1].clone()


def relative(actions: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest number."""
    return float((actions - expected).abs().max() / expected.abs().max())
