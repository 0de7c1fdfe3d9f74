"""Parts of a model that a run leaves as they are: what they compute needs no gradients, which makes steps cheaper."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from vla.api import InputError
from vla.training.checks import require_texts


def freeze(model: nn.Module, options: Mapping[str, Any]) -> None:
    """Leave the parameters of the parts `options["frozen"]` as they are.

    Raises:
        InputError: on a part that the model does not have, if nothing is left to train, or if the parts were not
            trained before.
    """
    if options["frozen"] is None:
        return
    require_texts("frozen", options["frozen"])
    if options["from"] is None:
        raise InputError(
            "frozen keeps parts of a checkpoint as they are: name it with from=<directory>, or leave frozen=null"
        )
    parts = dict(model.named_children())
    if unknown := sorted(set(options["frozen"]) - set(parts)):
        raise InputError(f"frozen: the model has no part {unknown[0]!r}; its parts are {', '.join(parts)}")
    if not any(parameter.requires_grad for parameter in _others(parts, options["frozen"])):
        raise InputError(f"frozen={options['frozen']} leaves nothing to train")
    for name in options["frozen"]:
        parts[name].requires_grad_(False)


def _others(parts: Mapping[str, nn.Module], frozen: Iterable[str]) -> Iterable[nn.Parameter]:
    return (parameter for name, part in parts.items() if name not in frozen for parameter in part.parameters())
