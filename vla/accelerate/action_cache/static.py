"""Runs the blocks of the denoising network in every N-th step only (EfficientVLA, sec. 3.4; arXiv 2506.10100)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vla.accelerate.action_cache.residual import Residual, check_interval, check_order
from vla.accelerate.stages import ActionCache, Blocks, Denoising


@dataclass(frozen=True)
class Static(ActionCache):
    """Full steps at a fixed interval, the first among them; in between, what the blocks added last is added again.

    Args:
        interval: N; 1 runs the blocks in every step.
        order: 0 as published; 1 extrapolates from the last two full steps.

    Raises:
        InputError: on a value outside its range.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"interval": 2}
    interval: int = 1
    order: int = 0

    def __post_init__(self) -> None:
        check_interval("static", self.interval)
        check_order("static", self.order)

    def wrap(self, blocks: Blocks, run: Denoising) -> Blocks:
        residual = Residual(self.order)

        def cached(index: int, hidden: Tensor) -> Tensor:
            if index % self.interval:
                return hidden + residual.at(index)
            made = blocks(index, hidden)
            residual.keep(index, hidden, made)
            return made

        return cached


TECHNIQUE = Static
