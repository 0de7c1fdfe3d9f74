"""A small world to imitate: the action points from the state at a bright square whose place the image shows."""

from pathlib import Path

import numpy as np
import torch

from tests.vla.small import CAMERA, INSTRUCTION, PROCESSING, TOKENIZER, small_config
from vla.api import Quantity
from vla.models.cogact import CogAct
from vla.tokenizer import prompt_ids
from vla.training.batches import Batches, Prompts
from vla.training.behaviour_cloning import Trainer
from vla.training.dataset import Demonstrations
from vla.training.keypoints import KeypointHead
from vla.training.mixture import Mixture
from vla.training.schedule import Cloning, Phase

NAMES = ("source_x", "source_y", "source_z", "yaw_sin", "yaw_cos")
PHASES = (Phase(16, 24, 4, 2e-3, 1e-3), Phase(32, 24, 8, 1e-3, 0.0))  # 6 steps, then 3


def demonstrations(episodes: int = 6, length: int = 5, seed: int = 0) -> Demonstrations:
    """Random episodes of equal length with matching images, states, actions and key points."""
    rng = np.random.default_rng(seed)
    frames = episodes * length
    images = rng.integers(0, 60, (frames, 32, 32, 3), dtype=np.uint8)
    places = np.repeat(rng.integers(0, 24, (episodes, 2)), length, axis=0)  # the square rests during an episode
    for image, (row, column) in zip(images, places, strict=True):
        image[row : row + 8, column : column + 8] = 250
    points = (places / 240).astype(np.float32)
    keypoints = np.concatenate([points, np.zeros((frames, 2)), np.ones((frames, 1))], axis=1).astype(np.float32)
    grip = np.where(places[:, :1] > 12, 1, -1)
    actions = np.concatenate([points * 0.5 - 0.02, grip], axis=1).astype(np.float32)
    return Demonstrations(
        views={CAMERA: images},
        states=rng.uniform(0.1, 0.4, (frames, 2)).astype(np.float32),
        actions=actions,
        keypoints=keypoints,
        episode_index=np.repeat(np.arange(episodes), length),
        episode_ends=np.arange(1, episodes + 1) * length,
        instructions=[INSTRUCTION],
        task_index=np.zeros(frames, np.int64),
        state_quantities=PROCESSING.state,
        action_quantities=PROCESSING.actions,
        keypoint_quantities=tuple(Quantity(name, "1") for name in NAMES),
        period=0.2,
        horizon=4,
    )


def batches(data: Demonstrations, frames: np.ndarray, seed: int = 0) -> Batches:
    """Batches of those frames."""
    prompts = Prompts({INSTRUCTION: [prompt_ids(TOKENIZER, PROCESSING.text(INSTRUCTION), 32)[0]]}, pad_id=0)
    return Batches(Mixture((data,)), frames, {data.robot: PROCESSING}, prompts, seed)


def cloning(phases: tuple[Phase, ...] = PHASES, bf16: bool = True, minutes: float = 60.0) -> Cloning:
    """How to train for a moment; `minutes` = 0 saves after every step."""
    return Cloning(phases, 2, 1.0, 0.9, minutes, 4, seed=3, bf16=bf16)


def trainer(out: Path, how: Cloning, dataset: str = "squares") -> Trainer:
    """A trainer that is the same at every call; `dataset` is what it says its data is."""
    out.mkdir(exist_ok=True)
    data = demonstrations()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = small_config()
        model = CogAct(config)
        keypoints = KeypointHead(NAMES, config.language_width)
    training, held_out = np.arange(25), np.arange(25, 30)
    validation = (batches(data, held_out), held_out)
    return Trainer(model, keypoints, how, batches(data, training), validation, out, {"dataset": dataset})
