"""The stages of one answer as callables, and what decides how they are run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from vla.accelerate.techniques import Technique
from vla.models.family import ActionModel

Act = Callable[[Any, Tensor], Tensor]
Inpaint = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stages:
    """What a policy runs, in this order.

    Attributes:
        encode: images (batch, cameras, channels, height, width) -> visual tokens (batch, tokens, width).
        prefill: (visual tokens, prompt (batch, words), state (batch, S) or None) -> what the head needs.
        act: (what `prefill` gave, noise (batch, *noise_shape)) -> (batch, horizon, A) normalised.
        inpaint: as `act`, with known actions (batch, horizon, A) and their weights (batch, horizon, 1); None if the
            head cannot continue known actions.
        plain: the same stages as ordinary PyTorch operations, which a counter of operations can see; None: these are.
    """

    encode: Callable[[Tensor], Tensor]
    prefill: Callable[[Tensor, Tensor, Tensor | None], Any]
    act: Act
    inpaint: Inpaint | None = None
    plain: "Stages | None" = None


@dataclass(frozen=True)
class Execution(Technique):
    """Decides how the stages of a model are run.

    Attributes:
        places: the slots beside its own that it leaves room for.
    """

    slot: ClassVar[str] = "execution"
    places: ClassVar[frozenset[str]] = frozenset({"weights"})

    def stages(self, model: ActionModel, recipe: Any) -> Stages:
        """Build the stages, once, after the model is where and in what it will be used.

        Args:
            model: on its device and in its dtype.
            recipe: a `vla.recipe.Recipe`: steps, guidance and the other slots' techniques.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Decoding(Technique):
    """Decides how action words come out."""

    slot: ClassVar[str] = "decoding"

    def decode(self, model: Any, prefilled: Any) -> Tensor:
        """The words of one chunk, (batch, words) int64.

        Args:
            model: has `config`, `logits(hidden)` and `extend(prefilled, words)`, as `vla.models.openvla.OpenVla`.
            prefilled: of its `prefill`; used up.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Weights(Technique):
    """Changes parameters, once after loading."""

    slot: ClassVar[str] = "weights"

    def apply(self, model: ActionModel) -> ActionModel:
        """The changed model; it may be the same object."""
        raise NotImplementedError


@dataclass(frozen=True)
class TokenReduction(Technique):
    """Takes visual tokens out in front of language layers."""

    slot: ClassVar[str] = "tokens"

    @property
    def layers(self) -> tuple[int, ...]:
        """The language layers in front of which it acts."""
        raise NotImplementedError

    def reduce(self, layer: int, tokens: Any) -> Any:
        """The tokens that stay: a `vla.accelerate.lean.decoder.Tokens`, usually its `kept(index)`."""
        raise NotImplementedError


@dataclass(frozen=True)
class ActionCache(Technique):
    """Decides in every denoising step whether the blocks of the network run or an earlier result is used again."""

    slot: ClassVar[str] = "action_cache"

    def wrap(self, blocks: Callable[[int, Tensor], Tensor]) -> Callable[[int, Tensor], Tensor]:
        """What runs instead of the blocks.

        Args:
            blocks: (step, hidden (batch, tokens, width)) -> hidden after all blocks; steps of a chunk count from 0.
        """
        raise NotImplementedError
