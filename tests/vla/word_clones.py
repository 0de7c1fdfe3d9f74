"""The small world of `clones`, imitated in words: a model that says its actions, and trainers for it."""

from pathlib import Path

import numpy as np
import torch

from tests.vla.clones import NAMES, batches, demonstrations
from tests.vla.small import small_config, small_model
from vla.models.openvla import OpenVla
from vla.training.behaviour_cloning import Trainer
from vla.training.blocks import Blocks
from vla.training.keypoints import KeypointHead
from vla.training.objectives import Words
from vla.training.schedule import Cloning
from vla.training.speaking import Tokens, speaking

TOKENS = Tokens(horizon=4, bins=16, smoothing=0.0)  # 12 words: 4 actions of 3 numbers
BLOCKS = Blocks(4, True, True, drafts=0.25, noisy_weight=0.5, vision_efficient=True, shifted=True, blind=0.0)


def speaker(seed: int = 0) -> OpenVla:
    """A small model that says chunks of 12 words; random weights everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return speaking(small_model(seed), TOKENS).eval()


def loud_speaker(seed: int = 0) -> OpenVla:
    """The same, with weights so large that every word depends on all that was read."""
    model, random = speaker(seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 2
            parameter.normal_(std=fan_in**-0.5, generator=random)
    return model


def word_trainer(out: Path, how: Cloning, objective: Words, seed: int = 0) -> Trainer:
    """A trainer that is the same at every call."""
    out.mkdir(exist_ok=True)
    data, model = demonstrations(), speaker(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        keypoints = KeypointHead(NAMES, small_config().language_width)
    training, held_out = np.arange(25), np.arange(25, 30)
    validation = (batches(data, held_out), held_out)
    return Trainer(model.train(), keypoints, how, batches(data, training), validation, out, {}, objective=objective)
