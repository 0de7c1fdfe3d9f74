"""Success against latency: the same starts run with several latencies and control loops, and what a point costs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FILE = "latency.json"  # in a run's folder; its report draws it
HUNDRED_MS = 100.0
METHOD = (
    "success at the last step (SIMPLER), mean over tasks, with 95% intervals as in results.json; cost: the "
    "least-squares slope, its 95% interval made of those of the points as if they were independent (MOVER), which is "
    "wide, because they share their starts"
)


class Point(NamedTuple):
    """One run of a sweep.

    Attributes:
        results: the content of its `results.json`.
    """

    loop: str
    latency_ms: float
    results: Mapping[str, Any]


def curve(points: Iterable[Point], marks: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `latency.json`.

    Args:
        points: finished runs on the same starts.
        marks: `{recipe, latency_ms, source}` of recipes to show where they land.
    """
    by_loop: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.latency_ms):
        by_loop.setdefault(point.loop, []).append(point)
    lines = {name: [_summary(point) for point in line] for name, line in by_loop.items()}
    loops = {name: {"points": line, "cost": cost(line)} for name, line in lines.items()}
    return {
        "meta": dict(meta),
        "method": METHOD,
        "loops": loops,
        "words": [words(name, loop) for name, loop in loops.items()],
        "marks": [{**mark, "success": _at(loops, float(mark["latency_ms"]))} for mark in marks],
    }


def cost(points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What latency costs along one control loop; None with fewer than two latencies, or one without a scored run."""
    if len(points) < 2 or any(point["success_rate"] is None for point in points):
        return None
    places = np.array([point["latency_ms"] for point in points])
    shares = np.array([point["success_rate"] for point in points])
    low, high = np.array([point["ci95"] for point in points]).T
    centred = places - places.mean()
    weights = HUNDRED_MS * 100 * centred / (centred @ centred)  # of the least-squares slope, points per 100 ms
    slope = float(weights @ shares)
    below = float(np.linalg.norm(weights * np.where(weights > 0, shares - low, shares - high)))
    above = float(np.linalg.norm(weights * np.where(weights > 0, high - shares, low - shares)))
    least, most = slope - below, slope + above
    return {
        "points_per_100_ms": slope,
        "ci95": [least, most],
        "n": min(point["n"] for point in points),
        "range_ms": [float(places[0]), float(places[-1])],
        "ms_per_point": HUNDRED_MS / -slope if most < 0 else None,
        "ms_per_point_ci95": [HUNDRED_MS / -least, HUNDRED_MS / -most] if most < 0 else None,
        "half_ms": _half(places, shares),
    }


def words(name: str, loop: Mapping[str, Any]) -> str:
    """What a point of success costs, in a sentence."""
    spelled, price = name.replace("_", " "), loop["cost"]
    if price is None:
        return f"{spelled}: too few latencies to say what a point of success costs."
    span = f"between {price['range_ms'][0]:.0f} and {price['range_ms'][1]:.0f} ms, {price['n']} episodes each"
    if price["ms_per_point"] is None:
        low, high = price["ci95"]
        return f"{spelled}: no cost of latency was found ({low:+.1f} to {high:+.1f} points per 100 ms, {span})."
    low, high = price["ms_per_point_ci95"]
    sentence = f"{spelled}: a point of success costs {price['ms_per_point']:.0f} ms [{low:.0f}, {high:.0f}] ({span})"
    return f"{sentence}; half of it is gone at {price['half_ms']:.0f} ms." if price["half_ms"] else f"{sentence}."


def _summary(point: Point) -> dict[str, Any]:
    tasks = [task for task in point.results["tasks"] if task["averaged"]]
    return {
        "latency_ms": point.latency_ms,
        **{name: sum(task[name] for task in tasks) for name in ("n", "successes", "errors")},
        "success_rate": point.results["mean_success"],
        "ci95": point.results["mean_ci95"],
    }


def _half(places: NDArray[np.float64], shares: NDArray[np.float64]) -> float | None:
    """[ms] where success first falls to half of what it was at the smallest latency; None if it does not."""
    half = shares[0] / 2
    below = np.flatnonzero(shares <= half)
    if shares[0] <= 0 or not len(below):
        return None
    after = int(below[0])
    return float(np.interp(-half, -shares[[after - 1, after]], places[[after - 1, after]]))


def _at(loops: Mapping[str, Mapping[str, Any]], latency_ms: float) -> dict[str, float | None]:
    """Success of each loop at a latency, on straight lines between its points; None beyond them."""
    found: dict[str, float | None] = {}
    for name, loop in loops.items():
        places = [point["latency_ms"] for point in loop["points"]]
        shares = [point["success_rate"] for point in loop["points"]]
        inside = None not in shares and places[0] <= latency_ms <= places[-1]
        found[name] = float(np.interp(latency_ms, places, shares)) if inside else None
    return found
