"""A small checkpoint with random weights, and observations that fit it."""

from pathlib import Path

import numpy as np
import torch

from vla.api import Camera, Observation, Quantity
from vla.checkpoints import native
from vla.models.cogact import CogAct, CogActConfig
from vla.processing import Processing, Range
from vla.tokenizer import BOS, COGNITION, PAD, PROMPT, build_tokenizer

CAMERA = "3rd_view_camera"
INSTRUCTION = "put the spoon on the towel"
TRAINING = {"seed": 0, "phases": [{"samples": 10}]}
PROCESSING = Processing(
    cameras=(Camera(CAMERA, 32, 32),),
    state=(Quantity("x", "m"), Quantity("gripper", "1")),
    actions=(Quantity("dx", "m"), Quantity("dyaw", "rad"), Quantity("gripper", "1")),
    period=0.2,
    prompt=PROMPT,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.25, 0.5),
    state_range=Range((0.1, 0.0), (0.4, 1.0), (True, True)),
    action_range=Range((-0.02, -0.1, -1.0), (0.03, 0.2, 1.0), (True, True, False)),
)
TOKENIZER = build_tokenizer()


def word(token: str) -> int:
    """Id of a special token."""
    number = TOKENIZER.token_to_id(token)
    assert number is not None
    return number


def small_config() -> CogActConfig:
    """The smallest model that fits PROCESSING and TOKENIZER."""
    return CogActConfig(
        image_size=32,
        patch_size=16,
        cameras=1,
        vision_width=24,
        vision_depth=1,
        vision_heads=2,
        language_width=32,
        language_depth=2,
        language_heads=2,
        language_mlp_width=48,
        vocabulary=TOKENIZER.get_vocab_size(),
        max_prompt=32,
        pad_id=word(PAD),
        bos_id=word(BOS),
        cognition_id=word(COGNITION),
        state_dim=2,
        head_width=32,
        head_depth=2,
        head_heads=2,
        horizon=4,
        action_dim=3,
        train_steps=100,
        prediction="sample",
    )


def small_model(seed: int = 0) -> CogAct:
    """Random weights everywhere, also where training starts from zeros, so that every input reaches the actions."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CogAct(small_config()).eval()
        for parameter in model.head.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def save_small(directory: Path, seed: int = 0) -> Path:
    """Write a small checkpoint and return its directory."""
    native.save(directory, small_model(seed), PROCESSING, TOKENIZER, TRAINING)
    return directory


def observation(seed: int = 0, session: str = "robot", step: int = 0, instruction: str = INSTRUCTION) -> Observation:
    """A random observation that fits PROCESSING."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    state = random.uniform(0, 0.5, 2).astype(np.float32)
    return Observation({CAMERA: image}, instruction, state, session=session, step=step)
