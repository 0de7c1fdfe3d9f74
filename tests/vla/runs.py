"""Options of a training run that takes a moment."""

from pathlib import Path
from typing import Any

import yaml

from tests.vla.small import CAMERA

PRESET = Path(__file__).parents[2] / "configs" / "train.yaml"


def small_run(out: str, samples: int) -> dict[str, Any]:
    """Of a tiny model, in steps of 8 samples; training options are those of the shipped preset."""
    preset = yaml.safe_load(PRESET.read_text())
    small = {"image_size": 32, "vision_width": 24, "vision_depth": 1, "vision_heads": 2, "language_width": 32}
    small |= {"language_depth": 1, "language_heads": 2, "language_mlp_width": 48, "horizon": 4}
    small |= {"head_width": 32, "head_depth": 1, "head_heads": 2}
    phases = [{"image_size": 32, "samples": samples, "batch": 8, "learning_rate": 1e-3, "final_learning_rate": 0.0}]
    changed = {"dataset": "memory", "out": out, "cameras": [CAMERA], "phases": phases, "threads": 1}
    del preset["hydra"], preset["defaults"]
    return preset | changed | {"model": preset["model"] | small}
