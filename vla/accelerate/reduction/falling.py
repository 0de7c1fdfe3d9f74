"""What each language layer keeps, so that together they keep a share, where tokens that left never come back.

PrefixKV's tables say what each layer needs by itself. Here a layer must also have what all later ones need, and the
first one reads every token; of the measured tables that one is taken with which the given share is kept nevertheless.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError

_HALVINGS = 60


def falling_table(measured: Mapping[str, Sequence[float]], keep: float) -> list[float]:
    """The share of tokens in each layer, never rising; its mean is `keep`, and with more of it no layer keeps less.

    Args:
        measured: share of all layers' tokens, ascending -> share that each layer keeps by itself.

    Raises:
        InputError: if the first layer alone has more tokens.
    """
    budgets = np.array([0.0, *map(float, measured), 1.0])
    needs = np.array(list(measured.values()))  # (budgets, layers)
    depth = needs.shape[1]
    needs = np.vstack([np.zeros(depth), needs, np.ones(depth)])
    if keep * depth <= 1:
        raise InputError(
            f"budget.measured must be above {1 / depth:.3g}, the first of {depth} layers reads every token; got {keep}"
        )
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _falling(budgets, needs, middle).mean() < keep else (low, middle)
    return _falling(budgets, needs, high).tolist()


def _falling(budgets: NDArray[np.float64], needs: NDArray[np.float64], budget: float) -> NDArray[np.float64]:
    """(layers,) the needs at a budget, between those that were measured, and of all later layers."""
    needed = np.array([np.interp(budget, budgets, of_layer) for of_layer in needs.T])
    needed[0] = 1
    return np.maximum.accumulate(needed[::-1])[::-1]
