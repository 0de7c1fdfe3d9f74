"""What the visual tokens of a sequence are: how many each camera has, on which grid, and where they stand."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from vla.api import InputError


@dataclass(frozen=True)
class Layout:
    """The visual tokens at one point of a model.

    Attributes:
        grid: rows and columns of patches of one camera.
        counts: tokens that each camera has at this point.
        depth: language layers.
        blocks: blocks of the vision tower that run; of two towers side by side, of the shorter one.
        read_on: whether keys and values of this sequence are read again after it, so that no row may have gaps.
    """

    grid: tuple[int, int]
    counts: tuple[int, ...]
    depth: int
    blocks: int
    read_on: bool = False

    @property
    def patches(self) -> int:
        """Patches of one camera."""
        return self.grid[0] * self.grid[1]

    @property
    def whole(self) -> bool:
        """Whether every camera still has one token for each patch."""
        return all(count == self.patches for count in self.counts)

    def left(self, counts: tuple[int, ...]) -> "Layout":
        """With these counts from here on."""
        return replace(self, counts=counts)

    def same(self, method: str) -> int:
        """Tokens of a camera, where all cameras must have the same number.

        Raises:
            InputError: if they have not.
        """
        if len(set(self.counts)) > 1:
            raise InputError(f"{method} needs the same number of tokens in every camera, got {list(self.counts)}")
        return self.counts[0]


class Visual(NamedTuple):
    """Visual tokens that are not all patches in order.

    Attributes:
        tokens: (batch, tokens, width), camera by camera, each in the order of `patches`.
        patches: (batch, tokens) int64: index of the patch, row by row in its camera, at whose position a token stands.
        owner: (batch, cameras * patches) int64: which of its camera's tokens a patch went into, -1 for none; None
            where every token is one patch.
        features: (batch, tokens, vision_width) of the tokens before the projector, or None if nobody asked.
        bias: (batch, tokens) in the dtype of `tokens`: what the language model adds to the logits of attention to a
            token; None: nothing.
    """

    tokens: Tensor
    patches: Tensor
    owner: Tensor | None
    features: Tensor | None
    bias: Tensor | None = None


def layout_of(model: Any) -> Layout:
    """The layout of a model's visual tokens when nothing was taken out.

    Raises:
        InputError: if it is of no family that has lean stages.
    """
    config = model.config
    side = config.image_size // config.patch_size
    if model.HEAD == "flow":
        depth = len(model.body.vlm.language_model.layers)
        blocks = len(model.body.vlm.vision_tower.encoder.layers)
    elif hasattr(model, "vision") and hasattr(model, "language"):
        depth, blocks = len(model.language.llama.layers), _blocks(model.vision)
    else:
        raise InputError(f"{type(model).__name__} has no visual tokens that could be taken out")
    counts = (side * side,) * config.cameras
    return Layout((side, side), counts, depth, blocks, model.HEAD != "diffusion")


def _blocks(vision: Any) -> int:
    """Blocks that run; of two towers all but each one's last do."""
    if hasattr(vision, "vit"):
        return len(vision.vit.layers)
    return min(len(vision.dino.encoder.layer), len(vision.siglip.encoder.layers)) - 1
