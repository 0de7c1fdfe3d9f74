"""Measures what techniques need to know about a checkpoint, on frames of demonstrations."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate import decoders
from vla.accelerate.reduction.tables import attention_by_layer, prefix_tables
from vla.api import InputError, Observation
from vla.calibration.stored import ACTIVATION, HIDDEN, OUTPUT, Calibration
from vla.models.family import ActionModel
from vla.policy import VlaPolicy
from vla.training.dataset import Demonstrations

DIRECTIONS = 8  # in which a feature's slope is taken: gradients, each as long as an answer or two


@dataclass(frozen=True)
class Measured:
    """Of one frame.

    Attributes:
        hidden: (layers,) 1 - cosine of what enters and what leaves each layer, mean over positions.
        output: (layers,) 1 - cosine of what the head is given with and without each layer.
        squares: (layers, channels) mean square over positions of what is inside each MLP.
        slopes: (layers, channels) mean square, over directions, of the relative change of what the head is given with a
            factor on what is inside.
    """

    hidden: Tensor
    output: Tensor
    squares: Tensor
    slopes: Tensor


def calibrate(
    sources: Sequence[tuple[VlaPolicy, Demonstrations]],
    frames: int,
    fingerprint: str,
    on_frame: Callable[[], None] = lambda: None,
) -> Calibration:
    """Measure.

    Args:
        sources: demonstrations of each robot, and the policy of the checkpoint for that robot, under the recipe `none`.
        frames: how many of each, spread evenly.
        fingerprint: of all demonstrations.
        on_frame: called after each.

    Raises:
        InputError: if demonstrations do not fit the policy, or there are fewer frames.
    """
    measured, attention = [], []
    for policy, demonstrations in sources:
        layers = decoders.depth(policy.model)
        look = attention_by_layer(policy) if layers > 1 else None  # tokens leave in front of a second layer at first
        for observation in observations(policy, demonstrations, frames):
            measured.append(measure(policy, observation))
            attention += [look(observation)] if look else []
            on_frame()
    count = len(measured)
    hidden, output, squares, slopes = (
        torch.stack([getattr(each, field.name) for each in measured]).mean(dim=0) for field in fields(Measured)
    )
    return Calibration(
        sources[0][0].spec.checkpoint,
        fingerprint,
        count,
        {HIDDEN: hidden.tolist(), OUTPUT: output.tolist()},
        {ACTIVATION: squares.sqrt().tolist(), OUTPUT: slopes.sqrt().tolist()},
        prefix_tables(attention) if attention else {},
    )


def observations(policy: VlaPolicy, demonstrations: Demonstrations, count: int) -> Iterator[Observation]:
    """Frames that are spread evenly over demonstrations, as a robot would send them.

    Raises:
        InputError: if there are fewer, or they do not fit the policy.
    """
    if count > len(demonstrations):
        raise InputError(f"frames={count}, but the demonstrations of {demonstrations.robot} have {len(demonstrations)}")
    for row in np.linspace(0, len(demonstrations) - 1, count).round().astype(int):
        observation = demonstrations.observation(row, bool(policy.spec.state))
        policy.spec.check(observation)
        yield observation


@torch.no_grad()
def measure(policy: VlaPolicy, observation: Observation) -> Measured:
    """Measure one frame; the model is as before afterwards."""
    model = policy.model
    images, prompt, state = policy.tensors([observation])
    visual = model.encode(images)
    noise = policy.noise([observation])
    decoder = model.decoders[0]
    with watched(decoder) as seen:
        whole = feature(model, model.prefill(visual, prompt, state), noise)
    count = len(decoder.layers)
    output = []
    for left_out in range(count):
        with without(model, left_out):
            output.append(apart(whole, feature(model, model.prefill(visual, prompt, state), noise)))
    hidden = [apart(before, after) for before, after in zip(seen.entering, seen.leaving, strict=True)]
    with scaled(decoder) as factors, torch.enable_grad():
        steep = slopes(feature(model, model.prefill(visual, prompt, state), noise), factors)
    return Measured(torch.stack(hidden), torch.stack(output), torch.stack(seen.squares), steep)


def slopes(given: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Mean square over random directions of how a feature (1, numbers) changes with factors, relative to its length.

    Args:
        given: the feature, computed with the factors.
        factors: of each layer, (channels,).

    Returns:
        (layers, channels) on the CPU.
    """
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(len(factors), len(factors[0]))
    for _ in range(DIRECTIONS):
        direction = torch.randn(given.shape, generator=random).to(given)
        made = torch.autograd.grad((given * direction).sum(), factors, retain_graph=True, materialize_grads=True)
        total += torch.stack(made).float().square().cpu()
    return total / DIRECTIONS / float(given.detach().float().square().sum())


def feature(model: ActionModel, prefilled: Any, noise: Tensor) -> Tensor:
    """What the head makes actions of, (1, numbers): the cognition token, the last word's hidden state, the velocity."""
    if isinstance(prefilled, Tensor):
        return prefilled
    if model.HEAD == "tokens":
        return prefilled.hidden[:, -1]
    velocity: Any = getattr(model, "velocity")  # noqa: B009 - only models with a flow have it
    return velocity(prefilled, noise, noise.new_ones(len(noise))).flatten(1)


def apart(one: Tensor, other: Tensor) -> Tensor:
    """1 - cosine of the rows of two (..., width), mean over rows, on the CPU."""
    return (1 - functional.cosine_similarity(one.float(), other.float(), dim=-1)).mean().cpu()


class Watched:
    """What went through the layers of a decoder."""

    def __init__(self) -> None:
        self.entering: list[Tensor] = []
        self.leaving: list[Tensor] = []
        self.squares: list[Tensor] = []


@contextmanager
def watched(decoder: Any) -> Iterator[Watched]:
    """Note what goes through the layers of a transformers decoder, once."""
    seen = Watched()

    def around(layer: Any, given: Any, made: Any) -> None:
        seen.entering.append(given[0])
        seen.leaving.append(made if isinstance(made, Tensor) else made[0])

    def inside(down: Any, given: Any) -> None:
        seen.squares.append(given[0].float().square().flatten(0, -2).mean(dim=0).cpu())  # (channels,)

    hooks = [layer.register_forward_hook(around) for layer in decoder.layers]
    hooks += [layer.mlp.down_proj.register_forward_pre_hook(inside) for layer in decoder.layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def scaled(decoder: Any) -> Iterator[list[Tensor]]:
    """Put a factor of one on every number inside the MLPs of a transformers decoder for a while."""
    maps = [layer.mlp.down_proj for layer in decoder.layers]
    factors = [torch.ones(each.in_features).to(each.weight).requires_grad_() for each in maps]
    hooks = [
        each.register_forward_pre_hook(lambda _, given, factor=factor: (given[0] * factor,))
        for each, factor in zip(maps, factors, strict=True)
    ]
    try:
        yield factors
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def without(model: ActionModel, left_out: int) -> Iterator[None]:
    """Leave one layer out for a while."""
    before = [list(decoder.layers) for decoder in model.decoders]
    for decoder, layers in zip(model.decoders, before, strict=True):
        decoders.put_layers(decoder, layers[:left_out] + layers[left_out + 1 :])
    try:
        yield
    finally:
        for decoder, layers in zip(model.decoders, before, strict=True):
            decoders.put_layers(decoder, layers)
