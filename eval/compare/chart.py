"""The picture of a comparison: rates with intervals beside paired differences with theirs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.charts import wrapped
from eval.compare.report import MEAN

RUN_COLOURS = ("#8a949e", "#1f5f8b", "#e08a3c", "#2a8a68", "#8e5ea2", "#b3382c")  # the baseline is grey


def draw(content: Mapping[str, Any]) -> Figure:
    """Bars of every run and task on the left, differences from the baseline on the right.

    Args:
        content: of `compare.json`.
    """
    runs, comparisons = content["runs"], content["comparisons"]
    names = [task["task"] for task in runs[0]["tasks"]]
    several = len(names) > 1
    rows = names + [MEAN] * several
    figure = Figure(figsize=(9.0, 1.4 + (0.25 + 0.2 * len(runs)) * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    for number, run in enumerate(runs):
        values = [*run["tasks"], *[run["mean"]] * several]
        _bars(left, values, number, len(runs), _plain(run["name"]))
    for number, comparison in enumerate(comparisons, start=1):
        values = [*comparison["tasks"], *[comparison["overall"]] * several]
        _points(right, values, number, len(runs), _colour(number))
    left.set(xlim=(0, 100), xlabel=f"{content['convention']} [%], 95% interval", yticks=range(len(rows)))
    counts = [task["n"] for task in [*runs[0]["tasks"], runs[0]["mean"]]]
    left.set_yticklabels([f"{wrapped(name)}\nn = {count}" for name, count in zip(rows, counts, strict=False)])
    left.invert_yaxis()
    margin = 100 * content["margin"]
    right.axvline(0, color="#222222", linewidth=0.8)
    right.axvline(-margin, color="#b3382c", linewidth=0.8, linestyle="--", label=f"non-inferiority, {margin:g} points")
    right.set(xlabel=f"difference from {_plain(runs[0]['name'])} [percentage points], 95% interval")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(8)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Write the figure as `<stem>.png` and `<stem>.svg`; the same figure gives the same bytes."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "compare", "font.family": "sans-serif"}):
        figure.savefig(stem.with_suffix(".png"), dpi=200, metadata={"Software": None})
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None, "Creator": None})


def _bars(axes: Axes, values: Sequence[Mapping[str, Any]], number: int, runs: int, label: str) -> None:
    places = [row + _offset(number, runs) for row in range(len(values))]
    shares = [100 * value["success_rate"] for value in values]
    axes.barh(places, shares, height=0.75 / runs, color=_colour(number), label=label)
    axes.errorbar(shares, places, xerr=_reach(values, shares), color="#222222", fmt="none", capsize=2, linewidth=0.9)


def _points(axes: Axes, values: Sequence[Mapping[str, Any]], number: int, runs: int, colour: str) -> None:
    places = [row + _offset(number, runs) for row in range(len(values))]
    shifts = [100 * value["difference"] for value in values]
    axes.errorbar(shifts, places, xerr=_reach(values, shifts), color=colour, fmt="o", markersize=4, capsize=2)


def _reach(values: Sequence[Mapping[str, Any]], middles: Sequence[float]) -> list[list[float]]:
    """Below and above the middle, as matplotlib wants them."""
    pairs = list(zip(values, middles, strict=True))
    below = [max(0.0, middle - 100 * value["ci95"][0]) for value, middle in pairs]
    return [below, [max(0.0, 100 * value["ci95"][1] - middle) for value, middle in pairs]]


def _plain(name: str) -> str:
    """A name that matplotlib shows as it is: no formula, and not hidden from the legend by a leading underscore."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def _offset(number: int, runs: int) -> float:
    return 0.78 * ((number + 0.5) / runs - 0.5)


def _colour(number: int) -> str:
    return RUN_COLOURS[number % len(RUN_COLOURS)]
