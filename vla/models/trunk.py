"""The trunk CogACT and OpenVLA share: vision tower -> projector -> language model (Prismatic, arXiv 2402.07865)."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from vla.api import InputError
from vla.models.config import ModelConfig, check_divides, check_whole, optional
from vla.models.family import ActionModel
from vla.models.language import LanguageModel
from vla.models.vision.dinosiglip import DinoSiglipTower
from vla.models.vision.vit import VisionTower

VIT, DINOSIGLIP = "vit", "dinosiglip"
PRISM_7B: dict[str, Any] = {  # the VLM that CogACT and OpenVLA 7B began with: prism-dinosiglip-224px+7b
    "image_size": 224,
    "patch_size": 14,
    "vision_backbone": DINOSIGLIP,
    "vision_width": 1024,  # DINOv2 ViT-L/14 with registers
    "vision_depth": 24,
    "vision_heads": 16,
    "registers": 4,
    "siglip_width": 1152,  # SigLIP SO400M/14
    "siglip_depth": 27,
    "siglip_heads": 16,
    "siglip_mlp_width": 4304,
    "language_width": 4096,  # Llama-2-7B
    "language_depth": 32,
    "language_heads": 32,
    "language_mlp_width": 11008,
    "language_norm_eps": 1e-5,
    "language_head": True,
    "vocabulary": 32064,  # 32000 words and one for padding, then up to a multiple of 64
    "pad_id": 32000,
    "bos_id": 1,
    "prompt_suffix": (29871,),  # the word "▁", which stood before every answer in training
    "max_prompt": 256,
    "state_dim": 0,
}
_MAY_BE_ZERO = ("pad_id", "bos_id", "cognition_id", "state_dim")
_OF_DINOSIGLIP = ("registers", "siglip_width", "siglip_depth", "siglip_heads", "siglip_mlp_width")


@dataclass(frozen=True)
class TrunkConfig(ModelConfig):
    """Everything that decides the shapes of the trunk.

    Attributes:
        image_size: [px] side of the square input images.
        patch_size: [px] side of a patch; one visual token each.
        cameras: images per observation.
        vision_width, vision_depth, vision_heads: of the vision transformer.
        language_width, language_depth, language_heads, language_mlp_width: of the Llama.
        vocabulary: rows of the word embedding table.
        max_prompt: most words in a prompt.
        pad_id, bos_id: word ids of padding and of the first token.
        state_dim: numbers of robot state that enter as one token; 0 for none.
        vision_backbone: "vit", or "dinosiglip": DINOv2 and SigLIP side by side, and a projector of three layers.
        registers: of DINOv2.
        siglip_width, siglip_depth, siglip_heads, siglip_mlp_width: of SigLIP; `vision_*` are DINOv2's then.
        language_norm_eps: inside the Llama's norms.
        language_head: whether the Llama has a vocabulary head.
        prompt_suffix: word ids that follow every prompt.

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
    state_dim: int = 7
    vision_backbone: str = optional(VIT)
    registers: int = optional(0)
    siglip_width: int = optional(0)
    siglip_depth: int = optional(0)
    siglip_heads: int = optional(0)
    siglip_mlp_width: int = optional(0)
    language_norm_eps: float = optional(1e-6)
    language_head: bool = optional(False)
    prompt_suffix: tuple[int, ...] = optional(())

    def __post_init__(self) -> None:
        if self.vision_backbone not in (VIT, DINOSIGLIP):
            raise InputError(f"vision_backbone must be one of {[VIT, DINOSIGLIP]}, got {self.vision_backbone!r}")
        self._check_whole_numbers()
        object.__setattr__(self, "prompt_suffix", tuple(self.prompt_suffix))
        for word in self.prompt_suffix:
            check_whole("prompt_suffix", word, 0)
        if not isinstance(self.language_head, bool):
            raise InputError(f"language_head must be true or false, got {self.language_head!r}")
        if not isinstance(self.language_norm_eps, float) or not 0 < self.language_norm_eps < 1:
            raise InputError(f"language_norm_eps must be a number between 0 and 1, got {self.language_norm_eps!r}")
        check_divides("image_size", self.image_size, "patch_size", self.patch_size)
        for part in ("vision", "language", *(["siglip"] if self.vision_backbone == DINOSIGLIP else [])):
            check_divides(
                f"{part}_width", getattr(self, f"{part}_width"), f"{part}_heads", getattr(self, f"{part}_heads")
            )
        named = [f.name for f in fields(self) if f.name.endswith("_id")]
        if max(*self.prompt_suffix, *(getattr(self, name) for name in named)) >= self.vocabulary:
            raise InputError(f"{', '.join(named)} and prompt_suffix must be below vocabulary = {self.vocabulary}")

    def _check_whole_numbers(self) -> None:
        fused = self.vision_backbone == DINOSIGLIP
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type is not int:
                continue
            if f.name in _OF_DINOSIGLIP and not fused and value != 0:
                raise InputError(f"{f.name} belongs to vision_backbone {DINOSIGLIP!r}, got {value!r} with {VIT!r}")
            may_be_zero = f.name in _MAY_BE_ZERO or (f.name in _OF_DINOSIGLIP and not fused)
            check_whole(f.name, value, 0 if may_be_zero else 1)

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one camera."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def image_channels(self) -> int:
        """Three for each tower."""
        return 6 if self.vision_backbone == DINOSIGLIP else 3

    @property
    def ending(self) -> tuple[int, ...]:
        """Word ids that end the sequence."""
        return self.prompt_suffix

    @property
    def max_tokens(self) -> int:
        """Longest sequence that `prefill` feeds to the language model."""
        visual = self.cameras * self.visual_tokens
        return 1 + visual + int(self.state_dim > 0) + self.max_prompt + len(self.ending)


class Trunk(ActionModel):
    """The stage `encode`, and the sequence that families `prefill`."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = _vision(config)
        self.projector = _projector(config, self.vision.width)
        self.state_projector = nn.Linear(config.state_dim, config.language_width) if config.state_dim else None
        self.language = LanguageModel(
            vocabulary=config.vocabulary,
            width=config.language_width,
            depth=config.language_depth,
            heads=config.language_heads,
            mlp_width=config.language_mlp_width,
            max_positions=config.max_tokens,
            norm_eps=config.language_norm_eps,
            head=config.language_head,
        )

    @property
    def decoders(self) -> tuple[Any, ...]:
        return (self.language.llama,)

    def encode(self, images: Tensor) -> Tensor:
        """Images to visual tokens.

        Args:
            images: (batch, cameras, channels, height, width) floats, normalised.

        Returns:
            (batch, cameras * tokens, language_width), camera by camera, each row by row.
        """
        batch = len(images)
        tokens = self.projector(self.vision(images.flatten(0, 1)))  # (batch * cameras, tokens, language_width)
        return tokens.reshape(batch, -1, tokens.shape[-1])

    def sequence(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the language model is fed: [BOS][visual][state][prompt][ending].

        Args:
            visual: (batch, visual tokens, language_width).
            prompt: (batch, words) int64; padding (`pad_id`) may stand anywhere and changes nothing.
            state: (batch, state_dim), normalised; None for a model without state.

        Returns:
            Embeddings (batch, tokens, width), attended (batch, tokens).
        """
        first = self._words((self.config.bos_id,), prompt)
        ending = self._words(self.config.ending, prompt)
        parts = [first, visual, *self._state_token(state), self.language.embed(prompt), ending]
        embeddings = torch.cat(parts, dim=1)
        attended = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=visual.device)
        end = embeddings.shape[1] - ending.shape[1]
        attended[:, end - prompt.shape[1] : end] = prompt != self.config.pad_id
        return embeddings, attended

    def _words(self, ids: tuple[int, ...], prompt: Tensor) -> Tensor:
        """(batch, len(ids), width) embeddings of the same words for every prompt."""
        columns = [prompt.new_full((len(prompt), 1), word) for word in ids]  # nothing is copied from the CPU
        return self.language.embed(torch.cat([prompt[:, :0], *columns], dim=1))

    def _state_token(self, state: Tensor | None) -> list[Tensor]:
        if self.state_projector is None:
            return []
        if state is None:
            raise InputError(f"this model needs a state of {self.config.state_dim} numbers, got none")
        return [self.state_projector(state.to(self.state_projector.weight.dtype))[:, None]]


def _vision(config: TrunkConfig) -> VisionTower | DinoSiglipTower:
    common = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "width": config.vision_width,
        "depth": config.vision_depth,
        "heads": config.vision_heads,
    }
    if config.vision_backbone == VIT:
        return VisionTower(**common)
    return DinoSiglipTower(**common, **{name: getattr(config, name) for name in _OF_DINOSIGLIP})


def _projector(config: TrunkConfig, visual_width: int) -> nn.Sequential:
    """One hidden layer; or two for the fused tower, the first four times as wide as its input."""
    width = config.language_width
    if config.vision_backbone == VIT:
        return nn.Sequential(nn.Linear(visual_width, width), nn.GELU(), nn.Linear(width, width))
    inside = 4 * visual_width
    return nn.Sequential(
        nn.Linear(visual_width, inside), nn.GELU(), nn.Linear(inside, width), nn.GELU(), nn.Linear(width, width)
    )
