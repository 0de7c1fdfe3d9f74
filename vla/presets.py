"""Models at their published shapes: no weights ship with them, so they are built at random, for timing."""

from typing import Any

import torch

from vla.api import Camera, InputError, Quantity
from vla.checkpoints.checkpoint import Checkpoint
from vla.checkpoints.memory import require_room
from vla.checkpoints.weights import empty, randomise
from vla.embodiments import ACTIONS, BRIDGE
from vla.images import Resize
from vla.models import family as families
from vla.models.config import ModelConfig
from vla.models.family import Family
from vla.processing import Processing, Range
from vla.tokenizer import PROMPT, build_tokenizer


def names() -> list[str]:
    """All presets of all families."""
    return sorted(name for model_type in families.model_types() for name in families.find(model_type).presets)


def build(name: str, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """A random model of published shapes that reads one camera of a WidowX, and what it needs around it.

    Args:
        name: one of `names()`.
        device: where the weights are made.
        dtype: what they are made in, but for a diffusion head, which is in float32.

    Raises:
        InputError: if there is no such preset, or too little memory.
    """
    family, config = _find(name)
    model = empty(family, config)
    require_room(model, device, dtype)
    return Checkpoint(randomise(model, device, dtype), processing_for(config), build_tokenizer(), {"preset": name})


def processing_for(config: Any) -> Processing:
    """Processing that fits a model and no robot in particular; actions stay within [-1, 1] [m], [rad] and so on."""
    more = [Camera(f"camera_{i}", BRIDGE.camera.height, BRIDGE.camera.width) for i in range(1, config.cameras)]
    state = tuple(Quantity(f"state_{i}", "1") for i in range(config.state_dim))
    usual = config.action_dim == len(ACTIONS)
    actions = ACTIONS if usual else tuple(Quantity(f"action_{i}", "1") for i in range(config.action_dim))
    return Processing(
        cameras=(BRIDGE.camera, *more),
        state=state,
        actions=actions,
        period=BRIDGE.period,
        prompt=PROMPT,
        image_mean=(0.5,) * config.image_channels,
        image_std=(0.5,) * config.image_channels,
        state_range=_unit_range(len(state)),
        action_range=_unit_range(len(actions)),
        resize=Resize(config.image_size),
    )


def _unit_range(count: int) -> Range:
    return Range((-1.0,) * count, (1.0,) * count, (True,) * count)


def _find(name: str) -> tuple[Family, ModelConfig]:
    for model_type in families.model_types():
        family = families.find(model_type)
        if name in family.presets:
            return family, family.presets[name]
    raise InputError(f"unknown preset {name!r}; allowed: {', '.join(names())}")
