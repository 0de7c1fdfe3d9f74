"""Random: keep patches drawn by lot; what every other method has to beat at the same budget."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from vla.accelerate.reduction.options import check_count
from vla.accelerate.reduction.seen import Seen
from vla.accelerate.reduction.selecting import Anywhere


@dataclass(frozen=True)
class Random(Anywhere):
    """The same lot in every control step and for every session, so that actions depend on the observation alone.

    Args:
        seed: of the draw, which is another one for each camera of a group.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.method, "seed", self.seed, 0)

    def choose(self, seen: Seen, count: int) -> Tensor:
        rows, tokens = seen.patches.shape
        lots = _lots(int(tokens), count, seen.cameras, self.seed, seen.patches.device)  # a tensor while it is traced
        return lots.repeat(rows // seen.cameras, 1)


@cache
def _lots(tokens: int, count: int, cameras: int, seed: int, device: torch.device) -> Tensor:
    """(cameras, count) int64 ascending; drawn once, as nothing may come from the CPU while a GPU records."""
    random = torch.Generator().manual_seed(seed)
    lots = [torch.randperm(tokens, generator=random)[:count].sort().values for _ in range(cameras)]
    return torch.stack(lots).to(device)


TECHNIQUE = Random
