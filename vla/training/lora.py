"""Fine-tuning with few parameters: low-rank changes to a trunk's matrices (LoRA, Hu et al., 2021), by way of peft.

Every linear map of vision, projector and language model gets two narrow ones beside it, as OpenVLA's own fine-tuning
has it; a diffusion head is trained as a whole, everything else stays as it was. Where a model learns to say actions
that did not speak, its vocabulary head and word embeddings begin at random and are trained as a whole too; so are the
embeddings of one that learns to fill in blocks, because of its mask word. What is shipped has the changes added in, so
nothing downstream knows of them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vla.api import InputError
from vla.checkpoints.weights import fill
from vla.models.trunk import Trunk
from vla.training.checks import require_kind, require_number, require_whole

_TRUNK = ("vision.", "projector.", "language.")
_WHOLE = ("head.", "state_projector.")  # trained as they are
_KEPT = ("lm_head",)  # the vocabulary head gets no changes
_NAME = "default"  # of peft's adapter


@dataclass(frozen=True)
class Lora:
    """How large the changes may become.

    Attributes:
        rank: of each change.
        alpha: changes are scaled by alpha / rank.

    Raises:
        InputError: on a value outside its range.
    """

    rank: int
    alpha: float

    def __post_init__(self) -> None:
        require_whole("lora.rank", self.rank, 1)
        require_number("lora.alpha", self.alpha)

    @classmethod
    def of(cls, options: Any) -> "Lora | None":
        """From the options `lora`; None if all parameters are trained.

        Raises:
            InputError: as above, or on other keys.
        """
        if options is None:
            return None
        require_kind("lora", options, dict, "a group of options, or null")
        if set(options) != {"rank", "alpha"}:
            raise InputError(f"lora has the keys ['alpha', 'rank'], got {sorted(options)}")
        return cls(**options)


def adapted(model: Trunk, lora: Lora, untaught: tuple[str, ...] = ()) -> Trunk:
    """The same model with changes to learn, which begin as nothing; only what is trained asks for gradients.

    Args:
        model: to be changed.
        lora: how much.
        untaught: first parts of the names of parameters that begin at random: trained as a whole.

    Raises:
        InputError: if peft is missing.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("lora needs the package peft: pip install 'cadence-vla[lora]'; or lora=null") from error
    targets = [name for name, module in model.named_modules() if _is_changed(name, module)]
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets)  # type: ignore[arg-type]
    inject_adapter_in_model(config, model, adapter_name=_NAME)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith((*_WHOLE, *untaught)))
    return model


def merged(model: Any) -> Any:
    """A model of the same kind whose matrices contain the changes; one without changes is returned as it is."""
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: each for name, each in model.named_modules() if isinstance(each, LoraLayer)}
    changes = {name: layer.get_delta_weight(_NAME) for name, layer in layers.items()}
    if not changes:
        return model
    tensors = {}
    for name, tensor in model.state_dict().items():
        if "lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        change = changes.get(plain.removesuffix(".weight"))
        tensors[plain] = tensor if change is None else (tensor + change.to(tensor.dtype)).detach()
    with torch.device("meta"):
        empty = type(model)(model.config).eval()
    return fill(empty, tensors)


def _is_changed(name: str, module: nn.Module) -> bool:
    inside = name.startswith(_TRUNK) and not any(part in name for part in _KEPT)
    return inside and type(module) is torch.nn.Linear
