"""A comparison that may be looked at after every start and stopped as soon as it is decided, at no cost in error.

A fixed-size test loses its error rate when more episodes are added because the first ones were not enough. An
e-process does not: under the null hypothesis it is a fair game, so it ever reaches 1 / alpha with a probability of at
most alpha, however often one looks (Ville, 1939). The game here bets on which policy wins the next start that only one
of them solves; each stake is the share of wins so far under the uniform prior, known before the start is run:

    E = product of (1 + stake * x),  x = +1 or -1,  stake = (wins - losses) / (wins + losses + 2)
      = 2 ** d * Beta(wins + 1, losses + 1)  after d = wins + losses discordant starts

(testing by betting: Shafer 2021; Waudby-Smith and Ramdas 2024; the mixture: Robbins 1970.) The package for this,
confseq, installs without a C++ toolchain and Boost on Python 3.10 only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

from vla.api import InputError

LARGEST = 700.0  # logarithm of the largest e-value given; more would not be a number


@dataclass(frozen=True)
class Sequential:
    """What the starts run so far say.

    Attributes:
        e_value: evidence against equal policies, of all starts; 1 is none.
        p_value: valid whenever one stops, also after having looked at every start: 1 / the largest e_value so far.
        stopped_at: number of starts after which it was decided; None if it is not.
        starts: number of starts.
    """

    e_value: float
    p_value: float
    stopped_at: int | None
    starts: int


def sequential_test(signs: Sequence[int] | NDArray[np.integer], alpha: float = 0.05) -> Sequential:
    """Test that two policies are equal, on starts in the order in which they were to be run.

    The order may not depend on the outcomes. Adding starts later, for whatever reason, is allowed.

    Args:
        signs: of each start: 1 if only the second policy solved it, -1 if only the first did, 0 if both or neither.
        alpha: probability of ever deciding between policies that are equal.

    Raises:
        InputError: for other signs, or alpha outside 0..1.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha must lie between 0 and 1, got {alpha}")
    evidence = e_process(signs)
    decided = np.flatnonzero(evidence >= 1 / alpha)
    return Sequential(
        e_value=float(evidence[-1]) if len(evidence) else 1.0,
        p_value=float(1 / max(1.0, evidence.max(initial=1.0))),
        stopped_at=int(decided[0]) + 1 if len(decided) else None,
        starts=len(evidence),
    )


def e_process(signs: ArrayLike) -> NDArray[np.float64]:
    """The e-value after every start, (..., starts) like the signs; many comparisons at once along the first axes.

    Raises:
        InputError: for signs other than -1, 0 and 1.
    """
    outcomes = np.asarray(signs)
    if not np.isin(outcomes, (-1, 0, 1)).all():
        raise InputError("the sign of a start must be -1, 0 or 1")
    wins, losses = np.cumsum(outcomes > 0, axis=-1), np.cumsum(outcomes < 0, axis=-1)
    logarithm = (wins + losses) * np.log(2.0) + betaln(wins + 1, losses + 1)
    return np.exp(np.minimum(logarithm, LARGEST))
