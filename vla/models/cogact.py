"""CogACT: vision tower -> projector -> language model -> cognition token -> diffusion head (arXiv 2411.19650)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vla.api import InputError
from vla.models.config import check_divides
from vla.models.family import Family
from vla.models.heads.diffusion import PREDICTIONS, DiffusionHead
from vla.models.trunk import PRISM_7B, Trunk, TrunkConfig


@dataclass(frozen=True)
class CogActConfig(TrunkConfig):
    """Everything that decides the shapes of a CogACT model, beside its trunk.

    Attributes:
        cognition_id: word id of the token that the head reads.
        head_width, head_depth, head_heads: of the DiT.
        horizon: actions in a chunk.
        action_dim: numbers in one action.
        train_steps: length of the noise schedule.
        prediction: "epsilon" or "sample": what the head predicts.

    Raises:
        InputError: on a value outside its range.
    """

    cognition_id: int = 2
    head_width: int = 128
    head_depth: int = 3
    head_heads: int = 4
    horizon: int = 16
    action_dim: int = 7
    train_steps: int = 100
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prediction not in PREDICTIONS:
            raise InputError(f"prediction must be one of {list(PREDICTIONS)}, got {self.prediction!r}")
        check_divides("head_width", self.head_width, "head_heads", self.head_heads)

    @property
    def ending(self) -> tuple[int, ...]:
        """Word ids that end the sequence; the last is the cognition token."""
        return (*self.prompt_suffix, self.cognition_id)


class CogAct(Trunk):
    """The plain model, in the stages `encode`, `prefill` and `head`."""

    HEAD = "diffusion"
    config: CogActConfig

    def __init__(self, config: CogActConfig) -> None:
        super().__init__(config)
        self.head = DiffusionHead(
            action_dim=config.action_dim,
            horizon=config.horizon,
            condition_dim=config.language_width,
            width=config.head_width,
            depth=config.head_depth,
            heads=config.head_heads,
            train_steps=config.train_steps,
            prediction=config.prediction,
        )

    def prefill(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> Tensor:
        """Visual tokens and instruction to the cognition token: [BOS][visual][state][prompt][suffix][cognition].

        Args:
            visual: (batch, visual tokens, language_width).
            prompt: (batch, words) int64; padding (`pad_id`) may stand anywhere and changes nothing.
            state: (batch, state_dim), normalised; None for a model without state.

        Returns:
            (batch, language_width): the last token's hidden state after the final norm.
        """
        embeddings, attended = self.sequence(visual, prompt, state)
        return self.language(embeddings, attended)[:, -1]


def dit(size: str) -> dict[str, Any]:
    """Shape of a published head: "S", "B" or "L"."""
    width, depth, heads = {"S": (384, 6, 4), "B": (768, 12, 12), "L": (1024, 24, 16)}[size]
    return {"head_width": width, "head_depth": depth, "head_heads": heads}


FAMILY = Family(
    "cogact",
    CogActConfig,
    CogAct,
    presets={
        f"cogact_{name}": CogActConfig(**PRISM_7B, **dit(size))
        for name, size in (("small", "S"), ("base", "B"), ("large", "L"))
    },
)
