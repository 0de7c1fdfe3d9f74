"""Linear maps with fewer bits, through torchao: everything but the head, the word table and the vocabulary head."""

import logging
import warnings
from typing import Any

from torch import nn

from vla.accelerate import decoders
from vla.api import InputError
from vla.models.family import ActionModel

MULTIPLE = 16  # of inputs and outputs, which the kernels ask for
_EXACT = ("head", "lm_head", "state_projector")


def torchao(method: str) -> Any:
    """`torchao.quantization`.

    Raises:
        InputError: if it is not installed.
    """
    try:
        with warnings.catch_warnings():  # it warns about kernels for other devices, and about its own older parts
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            import torchao.quantization  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(f"weights={method} needs torchao: pip install 'cadence-vla[quantize]'") from error
    finally:
        logging.disable(logging.NOTSET)
    return torchao.quantization


def check_plain(model: ActionModel, method: str) -> str | None:
    """Why a model's weights cannot be made coarser: they are quantised already."""
    if all(decoders.is_plain(layer.mlp.down_proj) for layer in model.decoders[0].layers):
        return None
    return f"its weights are quantised already; {method} excludes what did that"


def quantise(model: ActionModel, library: Any, config: Any) -> ActionModel:
    """Replace the weights of all linear maps that a quantised product pays for, in place; their names stay."""

    def pays(module: nn.Module, name: str) -> bool:
        shaped = isinstance(module, nn.Linear) and not (module.in_features | module.out_features) % MULTIPLE
        return may_be_coarser(name) and shaped

    library.quantize_(model, config, filter_fn=pays)
    return model


def may_be_coarser(name: str) -> bool:
    """Whether a module of this dotted name is in none of the head, the vocabulary head and the state's projection."""
    return not any(part in _EXACT for part in name.split("."))
