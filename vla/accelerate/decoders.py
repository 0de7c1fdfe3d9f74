"""The layers of a model's language model, as techniques take them out and measure them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from vla.models.family import ActionModel

_NUMBER = "number_in_checkpoint"


def depth(model: ActionModel) -> int:
    """How many layers its language model has now."""
    return len(model.decoders[0].layers)


def mlp_width(model: ActionModel) -> int:
    """Numbers inside each MLP of its language model now."""
    return model.decoders[0].layers[0].mlp.down_proj.in_features


def numbers(model: ActionModel) -> list[int]:
    """The number that each layer had in the checkpoint, by its place now."""
    layers = model.decoders[0].layers
    return [getattr(layer, _NUMBER, place) for place, layer in enumerate(layers)]


def keep_layers(model: ActionModel, places: Sequence[int]) -> None:
    """Leave only the layers at these places, in every decoder that goes through them together, in place."""
    named = numbers(model)
    for decoder in model.decoders:
        put_layers(decoder, [decoder.layers[place] for place in places])
        for layer, place in zip(decoder.layers, places, strict=True):
            setattr(layer, _NUMBER, named[place])
    name = "language_depth" if hasattr(model.config, "language_depth") else "depth"
    model.config = replace(model.config, **{name: len(places)})


def put_layers(decoder: Any, layers: Sequence[nn.Module]) -> None:
    """Make these the layers of a transformers decoder: their places in its cache follow."""
    decoder.layers = nn.ModuleList(layers)
    decoder.config.num_hidden_layers = len(layers)
    attention: Any
    for place, attention in enumerate(layer.self_attn for layer in decoder.layers):
        attention.layer_idx = place


def is_plain(module: nn.Linear) -> bool:
    """Whether a linear map has ordinary numbers for weights, not quantised ones."""
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter


def keep_rows(module: nn.Linear, index: Tensor) -> None:
    """Leave only these outputs of a linear map, in place."""
    module.weight = nn.Parameter(module.weight.detach()[index].contiguous(), requires_grad=False)
    if module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach()[index].contiguous(), requires_grad=False)
    module.out_features = len(index)


def keep_columns(module: nn.Linear, index: Tensor) -> None:
    """Leave only these inputs of a linear map, in place."""
    module.weight = nn.Parameter(module.weight.detach()[:, index].contiguous(), requires_grad=False)
    module.in_features = len(index)
