"""Runs the unconditioned half of a guided head in every N-th step only.

What both halves add to their input moves together; what changes slowly is how they differ. So in between, the
unconditioned half is taken to add what the conditioned one just added, plus the difference at the last full step (as
FasterCache, arXiv 2410.19355, does for video). Half of the blocks' work is saved in those steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate.action_cache.residual import check_interval
from vla.accelerate.stages import ActionCache, Blocks, Denoising
from vla.api import InputError


@dataclass(frozen=True)
class ReuseGuidance(ActionCache):
    """Both halves at a fixed interval, the conditioned one in every step.

    Args:
        interval: N; 1 runs both halves in every step.

    Raises:
        InputError: on a value outside its range.
    """

    EXAMPLE: ClassVar[Mapping[str, Any]] = {"interval": 2}
    interval: int = 1

    def __post_init__(self) -> None:
        check_interval("reuse_guidance", self.interval)

    def unfit(self, model: Any) -> str | None:
        return None if model.HEAD == "diffusion" else f"heads of kind {model.HEAD!r} have no guidance"

    def check(self, run: Denoising) -> None:
        if run.copies != 2:
            raise InputError("action_cache=reuse_guidance needs guidance: a guidance_scale other than 1")

    def wrap(self, blocks: Blocks, run: Denoising) -> Blocks:
        apart = torch.empty(0)

        def cached(index: int, hidden: Tensor) -> Tensor:
            nonlocal apart
            if index % self.interval == 0:
                made = blocks(index, hidden)
                conditioned, unconditioned = (made - hidden).chunk(2)
                apart = unconditioned - conditioned  # (batch, tokens, width)
                return made
            conditioned, unconditioned = hidden.chunk(2)
            made = blocks(index, conditioned)
            return torch.cat([made, unconditioned + (made - conditioned) + apart])

        return cached


TECHNIQUE = ReuseGuidance
