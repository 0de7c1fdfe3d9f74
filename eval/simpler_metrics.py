"""Does simulation rank policies as the robot does? SIMPLER's two answers (Li et al., arXiv 2405.05941, eq. 1-2)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError

CONVENTION = (
    "MMRV: gap of the real rates; a pair is in order if 'greater' agrees, so a tie in one list alone charges the "
    "better policy (SIMPLER's code; its paper prints 'less')"
)


def mean_maximum_rank_violation(*, sim: Sequence[float], real: Sequence[float]) -> float:
    """How much real performance a wrong ranking in simulation hides: 0 is the same ranking; lower is better.

    For each policy the largest real gap |R_i - R_j| among pairs where (S_i > S_j) differs from (R_i > R_j), then the
    mean over policies. Ties are judged with "greater", as SIMPLER's code does: two policies that tie in both lists
    are in order; with a tie in one list alone the pair counts once, for the policy that is better in the other.

    Args:
        sim: success rate of each policy in simulation, within 0..1.
        real: of the same policies in the same order on the robot; swapping the two lists changes the value.

    Raises:
        InputError: for fewer than two policies, lists of unequal length, or rates outside 0..1.
    """
    simulated, measured = _rates(sim, real)
    out_of_order = np.greater.outer(simulated, simulated) != np.greater.outer(
        measured, measured
    )  # (policies, policies)
    gaps = np.abs(np.subtract.outer(measured, measured))
    return float(np.where(out_of_order, gaps, 0.0).max(axis=1).mean())


def pearson_correlation(*, sim: Sequence[float], real: Sequence[float]) -> float:
    """Pearson's r of the success rates in simulation and on the robot; 1 is a straight line.

    Args:
        sim: success rate of each policy in simulation, within 0..1.
        real: of the same policies in the same order on the robot.

    Raises:
        InputError: as above, and if all rates of one list are equal, where r does not exist.
    """
    simulated, measured = _rates(sim, real)
    for name, rates in (("sim", simulated), ("real", measured)):
        if np.ptp(rates) == 0:
            raise InputError(f"Pearson's r needs rates that differ; every policy has {name}={rates[0]:g}")
    return float(np.corrcoef(simulated, measured)[0, 1])


def _rates(sim: Sequence[float], real: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    simulated, measured = np.asarray(sim, dtype=np.float64), np.asarray(real, dtype=np.float64)
    if simulated.ndim != 1 or simulated.shape != measured.shape or len(simulated) < 2:
        raise InputError(
            f"sim and real need one rate for each of two or more policies, got {list(sim)} and {list(real)}"
        )
    for name, rates in (("sim", simulated), ("real", measured)):
        if not ((rates >= 0) & (rates <= 1)).all():
            raise InputError(f"{name} must hold success rates within 0..1, got {rates.tolist()}")
    return simulated, measured
