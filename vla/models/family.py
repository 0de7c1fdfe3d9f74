"""Families of models, found by looking: every `vla/models/<model type>.py` with a `FAMILY` is one."""

import importlib
import pkgutil
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

import vla.models
from vla.api import InputError
from vla.models.config import ModelConfig


class ActionModel(nn.Module):
    """What a policy needs of a model: stages from images to what its head acts on.

    Attributes:
        HEAD: how actions come out: "diffusion" and "flow" denoise chunks, "tokens" decodes words; `vla.acting` runs it.
        config: decides the shapes; every family's has `image_size`, `image_channels`, `cameras`, `state_dim`,
            `action_dim`, `horizon`, `vocabulary`, `max_prompt`, `pad_id` and `bos_id`.
    """

    HEAD: ClassVar[str]
    config: Any

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(horizon, numbers) of the noise that one chunk is made from."""
        return self.config.horizon, self.config.action_dim

    @property
    def decoders(self) -> tuple[Any, ...]:
        """transformers decoders, first the one that reads the prompt, then those that go through its layers with it."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        """(batch, cameras, channels, height, width) normalised -> (batch, visual tokens, width)."""
        raise NotImplementedError

    def prefill(self, visual: Tensor, prompt: Tensor, state: Tensor | None) -> Any:
        """Visual tokens, (batch, words) int64 and (batch, state_dim) or None -> what the head needs."""
        raise NotImplementedError


@dataclass(frozen=True)
class Family:
    """What a family's file says about itself.

    Attributes:
        model_type: its name in a checkpoint's config, and its file's name.
        config_class: decides the shapes.
        model_class: takes one `config_class` and builds the model.
        presets: model name -> config at its published shapes.
    """

    model_type: str
    config_class: type[ModelConfig]
    model_class: type[Any]
    presets: dict[str, Any] = field(default_factory=dict)


def model_types() -> list[str]:
    """Names of all families."""
    return sorted(name for name in _files() if hasattr(_module(name), "FAMILY"))


def find(model_type: object) -> Family:
    """The family of this name; no other family's file is loaded.

    Raises:
        InputError: if there is none, listing those there are.
    """
    if isinstance(model_type, str) and model_type in _files():
        family = getattr(_module(model_type), "FAMILY", None)
        if isinstance(family, Family):
            return family
    raise InputError(f"model_type {model_type!r} is not one of {model_types()}")


def name_of(model: ActionModel) -> str:
    """The model type of a model: the name of the file that its class is in."""
    return type(model).__module__.rpartition(".")[2]


def _files() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(vla.models.__path__) if not module.ispkg]


def _module(name: str) -> Any:
    return importlib.import_module(f"{vla.models.__name__}.{name}")
