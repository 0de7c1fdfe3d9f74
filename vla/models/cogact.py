"""CogACT: vision tower -> projector -> language model -> cognition token -> diffusion head (arXiv 2411.19650)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from vla.api import InputError
from vla.models.heads.diffusion import PREDICTIONS, DiffusionHead
from vla.models.language import LanguageModel
from vla.models.vision import VisionTower


@dataclass(frozen=True)
class CogActConfig:
    """Everything that decides the shapes of a CogACT model.

    Attributes:
        image_size: [px] side of the square input images.
        patch_size: [px] side of a patch; one visual token each.
        cameras: images per observation.
        vision_width, vision_depth, vision_heads: of the vision transformer.
        language_width, language_depth, language_heads, language_mlp_width: of the Llama.
        vocabulary: rows of the word embedding table.
        max_prompt: most words in a prompt.
        pad_id, bos_id, cognition_id: word ids of padding, of the first token and of the token the head reads.
        state_dim: numbers of robot state that enter as one token; 0 for none.
        head_width, head_depth, head_heads: of the DiT.
        horizon: actions in a chunk.
        action_dim: numbers in one action.
        train_steps: length of the noise schedule.
        prediction: "epsilon" or "sample": what the head predicts.

    Raises:
        InputError: on a value outside its range.
    """

    image_size: int = 224
    patch_size: int = 16
    cameras: int = 1
    vision_width: int = 192
    vision_depth: int = 4
    vision_heads: int = 3
    language_width: int = 192
    language_depth: int = 8
    language_heads: int = 3
    language_mlp_width: int = 384
    vocabulary: int = 128
    max_prompt: int = 24
    pad_id: int = 0
    bos_id: int = 1
    cognition_id: int = 2
    state_dim: int = 7
    head_width: int = 128
    head_depth: int = 3
    head_heads: int = 4
    horizon: int = 16
    action_dim: int = 7
    train_steps: int = 100
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        may_be_zero = ("pad_id", "bos_id", "cognition_id", "state_dim")
        for name, value in asdict(self).items():
            if name == "prediction":
                continue
            least = 0 if name in may_be_zero else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.prediction not in PREDICTIONS:
            raise InputError(f"prediction must be one of {list(PREDICTIONS)}, got {self.prediction!r}")
        _check_divides("image_size", self.image_size, "patch_size", self.patch_size)
        for part in ("vision", "language", "head"):
            width, heads = getattr(self, f"{part}_width"), getattr(self, f"{part}_heads")
            _check_divides(f"{part}_width", width, f"{part}_heads", heads)
        if max(self.pad_id, self.bos_id, self.cognition_id) >= self.vocabulary:
            raise InputError(f"pad_id, bos_id and cognition_id must be below vocabulary = {self.vocabulary}")

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one camera."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def max_tokens(self) -> int:
        """Longest sequence the language model sees."""
        return 1 + self.cameras * self.visual_tokens + int(self.state_dim > 0) + self.max_prompt + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CogActConfig":
        """The inverse of `to_dict`.

        Raises:
            InputError: naming every key that is missing or unknown.
        """
        known = {field.name for field in fields(cls)}
        unknown, missing = sorted(values.keys() - known), sorted(known - values.keys())
        if unknown or missing:
            raise InputError(f"model config: unknown keys {unknown}, missing keys {missing}; known: {sorted(known)}")
        return cls(**values)


class CogAct(nn.Module):
    """The plain model, in the stages `encode`, `prefill` and `head`."""

    def __init__(self, config: CogActConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(
            image_size=config.image_size,
            patch_size=config.patch_size,
            width=config.vision_width,
            depth=config.vision_depth,
            heads=config.vision_heads,
        )
        self.projector = nn.Sequential(
            nn.Linear(config.vision_width, config.language_width),
            nn.GELU(),
            nn.Linear(config.language_width, config.language_width),
        )
        self.state_projector = nn.Linear(config.state_dim, config.language_width) if config.state_dim else None
        self.language = LanguageModel(
            vocabulary=config.vocabulary,
            width=config.language_width,
            depth=config.language_depth,
            heads=config.language_heads,
            mlp_width=config.language_mlp_width,
            max_positions=config.max_tokens,
        )
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

    def encode(self, images: Tensor) -> Tensor:
        """Images to visual tokens.

        Args:
            images: (batch, cameras, 3, height, width) floats, normalised.

        Returns:
            (batch, cameras * tokens, language_width), camera by camera, each row by row.
        """
        batch = len(images)
        tokens = self.projector(self.vision(images.flatten(0, 1)))  # (batch * cameras, tokens, language_width)
        return tokens.reshape(batch, -1, tokens.shape[-1])

    def prefill(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> Tensor:
        """Visual tokens and instruction to the cognition token: [BOS][visual][state][prompt][cognition].

        Args:
            visual: (batch, visual tokens, language_width).
            prompt: (batch, words) int64; padding (`pad_id`) may stand anywhere and changes nothing.
            state: (batch, state_dim), normalised; None for a model without state.

        Returns:
            (batch, language_width): the last token's hidden state after the final norm.
        """
        embeddings, attended = self.sequence(visual, prompt, state)
        return self.language(embeddings, attended)[:, -1]

    def sequence(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """What `prefill` feeds to the language model: embeddings (batch, tokens, width), attended (batch, tokens)."""
        bos = self.language.embed(torch.full_like(prompt[:, :1], self.config.bos_id))
        cognition = self.language.embed(torch.full_like(prompt[:, :1], self.config.cognition_id))
        parts = [bos, visual, *self._state_token(state), self.language.embed(prompt), cognition]
        embeddings = torch.cat(parts, dim=1)
        attended = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=visual.device)
        attended[:, -1 - prompt.shape[1] : -1] = prompt != self.config.pad_id
        return embeddings, attended

    def _state_token(self, state: Tensor | None) -> list[Tensor]:
        if self.state_projector is None:
            return []
        if state is None:
            raise InputError(f"this model needs a state of {self.config.state_dim} numbers, got none")
        return [self.state_projector(state)[:, None]]


def _check_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise InputError(f"{name} must be a multiple of {divisor_name}: {value} is not a multiple of {divisor}")
