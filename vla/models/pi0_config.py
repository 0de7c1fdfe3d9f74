"""The config of pi0: our names for what decides its shapes, and transformers' own config made of them."""

from dataclasses import dataclass, fields

import tokenizers
from transformers import PI0Config as PublishedConfig

from vla.api import InputError
from vla.models.config import ModelConfig, check_divides, check_whole

PAD, BOS = "<pad>", "<bos>"
_MAY_BE_ZERO = ("pad_id", "bos_id", "state_dim")


@dataclass(frozen=True)
class Pi0Config(ModelConfig):
    """Everything that decides the shapes of a pi0; left alone, they are the published ones.

    Attributes:
        image_size, patch_size: [px] sides of the square input images and of a patch; one visual token each.
        cameras: images per observation.
        vision_width, vision_depth, vision_heads, vision_mlp_width: of SigLIP.
        language_width, language_heads, language_mlp_width: of PaliGemma's Gemma.
        expert_width, expert_heads, expert_mlp_width: of the action expert, another Gemma.
        depth, kv_heads, head_dim: of both, as the expert's layers read the keys and values of the other's.
        vocabulary: rows of the word embedding table.
        max_prompt: most words in a prompt.
        pad_id, bos_id: word ids of padding and of the word before the prompt.
        horizon: actions in a chunk.
        state_dim, action_dim: numbers of the robot.
        state_width, action_width: numbers of the model; the robot's come first, then zeros or nothing of use.
        shortest_period, longest_period: of the sines that say the time.

    Raises:
        InputError: on a value outside its range.
    """

    image_size: int = 224
    patch_size: int = 14
    cameras: int = 3
    vision_width: int = 1152
    vision_depth: int = 27
    vision_heads: int = 16
    vision_mlp_width: int = 4304
    language_width: int = 2048
    language_heads: int = 8
    language_mlp_width: int = 16384
    expert_width: int = 1024
    expert_heads: int = 8
    expert_mlp_width: int = 4096
    depth: int = 18
    kv_heads: int = 1
    head_dim: int = 256
    vocabulary: int = 257152
    max_prompt: int = 47
    pad_id: int = 0
    bos_id: int = 2
    horizon: int = 50
    state_dim: int = 7
    action_dim: int = 7
    state_width: int = 32
    action_width: int = 32
    shortest_period: float = 4e-3
    longest_period: float = 4.0

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.type is int:
                check_whole(f.name, getattr(self, f.name), 0 if f.name in _MAY_BE_ZERO else 1)
        check_divides("image_size", self.image_size, "patch_size", self.patch_size)
        check_divides("vision_width", self.vision_width, "vision_heads", self.vision_heads)
        check_divides("expert_width", self.expert_width, "the two halves of the time's sines", 2)
        for part in ("language", "expert"):
            check_divides(f"{part}_heads", getattr(self, f"{part}_heads"), "kv_heads", self.kv_heads)
        for part in ("state", "action"):
            if getattr(self, f"{part}_dim") > getattr(self, f"{part}_width"):
                raise InputError(f"{part}_dim must be at most {part}_width, got {getattr(self, f'{part}_dim')}")
        if max(self.pad_id, self.bos_id) >= self.vocabulary:
            raise InputError(f"pad_id and bos_id must be below vocabulary = {self.vocabulary}")
        periods = (self.shortest_period, self.longest_period)
        if not all(isinstance(period, float) for period in periods) or not 0 < periods[0] < periods[1]:
            raise InputError(f"shortest_period and longest_period must be positive and ascend, got {periods}")

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one camera."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def image_channels(self) -> int:
        """Red, green and blue."""
        return 3

    def word_facts(self, tokenizer: tokenizers.Tokenizer) -> list[tuple[str, object, object]]:
        """What, ours, the tokenizer's. The word for an image, which has no embedding, may follow the last row."""
        words = tokenizer.get_vocab_size()
        return [
            ("words", min(words, self.vocabulary + 1), words),
            ("padding word", self.pad_id, tokenizer.token_to_id(PAD)),
            ("first word", self.bos_id, tokenizer.token_to_id(BOS)),
        ]

    def published(self) -> PublishedConfig:
        """As transformers says it; the word embeddings of the expert, which nothing reads, have one row."""
        both = {
            "model_type": "gemma",
            "num_hidden_layers": self.depth,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
        }
        text = both | {
            "hidden_size": self.language_width,
            "num_attention_heads": self.language_heads,
            "intermediate_size": self.language_mlp_width,
            "vocab_size": self.vocabulary,
        }
        vision = {
            "model_type": "siglip_vision_model",
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_size": self.vision_width,
            "num_hidden_layers": self.vision_depth,
            "num_attention_heads": self.vision_heads,
            "intermediate_size": self.vision_mlp_width,
            "vision_use_head": False,
        }
        expert = both | {
            "hidden_size": self.expert_width,
            "num_attention_heads": self.expert_heads,
            "intermediate_size": self.expert_mlp_width,
        }
        config = PublishedConfig(
            vlm_config={
                "model_type": "paligemma",
                "text_config": text,
                "vision_config": vision,
                "projection_dim": self.language_width,
                "image_token_id": self.vocabulary,
            },
            dit_config=expert,
            chunk_size=self.horizon,
            max_state_dim=self.state_width,
            max_action_dim=self.action_width,
            min_period=self.shortest_period,
            max_period=self.longest_period,
        )
        config.dit_config.vocab_size = 1  # pyright: ignore[reportAttributeAccessIssue,reportOptionalMemberAccess]
        return config
