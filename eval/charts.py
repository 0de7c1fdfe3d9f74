"""Charts of the pages as inline SVG: readable on a phone, their text selectable, their colours the page's own.

Charts are drawn with the light colours; in the SVG each becomes a CSS variable, so that a page that is dark shows them
in its dark ones.
"""

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

WIDTH = 4.6  # [inch]; at 72 points an inch this is the width of a phone's screen, so text keeps its size there
# CSS variable -> its light colour; `_look.css.j2` has the dark ones. No two are alike: they are replaced by value.
COLOURS = {
    "ink": "#1c2733",
    "quiet": "#5d6b78",
    "line": "#d9e0e6",
    "main": "#1f5f8b",
    "soft": "#9dbfd8",
    "warm": "#d9822b",
    "bad": "#b3382c",
    "good": "#1e7d4b",
}
MEASURES = {"last step": COLOURS["main"], "any step": COLOURS["soft"], "strict": COLOURS["warm"]}
SERIES = (COLOURS["main"], COLOURS["warm"], COLOURS["good"])
SHAPES = "osD"
STAGE_COLOURS = (COLOURS["soft"], COLOURS["main"], COLOURS["warm"])
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["quiet"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["quiet"],
    "ytick.color": COLOURS["line"],
    "ytick.labelcolor": COLOURS["ink"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}

P = ParamSpec("P")


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw in the pages' style."""

    @functools.wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> str:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawing


@styled
def success_chart(tasks: Sequence[Mapping[str, Any]]) -> str:
    """A bar per task and measure with its 95% interval; SVG."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.8 * len(tasks)), layout="constrained")
    axes = figure.subplots()
    for offset, (measure, colour) in enumerate(MEASURES.items()):
        for row, task in enumerate(tasks):
            measured = {"last step": task, "any step": task["any_step"], "strict": task["strict"]}[measure]
            if not measured["n"]:
                continue
            share, (low, high) = 100 * measured["success_rate"], measured["ci95"]
            reach = [[share - 100 * low], [100 * high - share]]
            place = row + 0.25 * (offset - 1)
            axes.barh(place, share, height=0.2, color=colour)
            axes.errorbar(share, place, xerr=reach, color=COLOURS["ink"], capsize=2, linewidth=1)
    axes.set(xlim=(0, 101), xlabel="success [%] with 95% interval", yticks=range(len(tasks)))
    axes.set_yticklabels([wrapped(task["task"]) for task in tasks])
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    legend = [Patch(color=colour, label=measure) for measure, colour in MEASURES.items()]
    figure.legend(handles=legend, loc="outside upper left", ncols=3)
    return svg(figure, "success")


@styled
def difference_chart(tasks: Sequence[Mapping[str, Any]]) -> str:
    """Paired difference of each task with its 95% interval, in points; SVG."""
    figure = Figure(figsize=(WIDTH, 0.7 + 0.4 * len(tasks)), layout="constrained")
    axes = figure.subplots()
    for row, task in enumerate(tasks):
        difference, (low, high) = 100 * task["difference"], task["ci95"]
        sure = COLOURS["good"] if low > 0 else COLOURS["bad"] if high < 0 else COLOURS["main"]
        reach = [[difference - 100 * low], [100 * high - difference]]
        axes.errorbar(difference, row, xerr=reach, color=sure, marker="o", markersize=5, capsize=3, linewidth=1.4)
    axes.axvline(0, color=COLOURS["ink"], linewidth=0.8)
    axes.set(xlabel="difference [points] with 95% interval", yticks=range(len(tasks)))
    axes.set_yticklabels([wrapped(task["task"]) for task in tasks])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return svg(figure, "paired differences")


@styled
def curve_chart(loops: Mapping[str, Sequence[Mapping[str, Any]]], marks: Sequence[Mapping[str, Any]]) -> str:
    """Success against latency with 95% intervals, a line for each control loop; SVG.

    Args:
        loops: name -> points of `latency.json`, in order.
        marks: recipes and their latencies.
    """
    figure = Figure(figsize=(WIDTH, 3.1 + 0.12 * len(marks)), layout="constrained")
    axes = figure.subplots()
    for (name, points), colour, shape in zip(loops.items(), SERIES, SHAPES, strict=False):
        places = [point["latency_ms"] for point in points]
        shares = [100 * point["success_rate"] for point in points]
        low, high = ([100 * point["ci95"][side] for point in points] for side in (0, 1))
        axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(places, shares, color=colour, marker=shape, markersize=4.5, linewidth=1.6, label=spelled(name))
    _mark(axes, marks)
    axes.set(ylim=(0, 101), xlabel="latency of one answer [ms]", ylabel="success [%]")
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    figure.legend(loc="outside upper left", ncols=3)
    return svg(figure, "success against latency")


@styled
def latency_chart(stages: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Median of each stage as a bar, its 99th percentile as a tick; SVG."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(stages)), layout="constrained")
    axes = figure.subplots()
    names = list(stages)
    axes.barh(names, [stages[name]["p50"] for name in names], height=0.55, color=COLOURS["main"], label="p50")
    tails = [stages[name]["p99"] for name in names]
    axes.plot(tails, names, "|", color=COLOURS["bad"], markersize=11, markeredgewidth=1.6, label="p99")
    axes.set(xlabel=f"one answer [ms], {plain(title)}")
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    figure.legend(loc="outside upper left", ncols=2)
    return svg(figure, f"latency {title}")


@styled
def stages_chart(rows: Sequence[Mapping[str, Any]], stages: Sequence[str]) -> str:
    """Medians of the stages of each row end to end, its total's median and 99th percentile, and its floor; SVG.

    Args:
        rows: of `profile.json`.
        stages: which of them, in order.
    """
    figure = Figure(figsize=(WIDTH, 1.3 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    ends = [0.0] * len(rows)
    for stage, colour in zip(stages, STAGE_COLOURS, strict=True):
        widths = [row["stages_ms"][stage]["p50"] for row in rows]
        axes.barh(places, widths, left=ends, height=0.5, color=colour, label=f"{stage}, p50")
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for name, colour in (("p50", COLOURS["ink"]), ("p99", COLOURS["bad"])):
        times = [row["stages_ms"]["total"][name] for row in rows]
        axes.plot(times, places, "|", color=colour, markersize=24, markeredgewidth=1.5, label=f"total, {name}")
    axes.plot([row["floor_ms"] for row in rows], places, "D", color=COLOURS["good"], markersize=4, label="floor")
    axes.set(xlabel="one control step [ms]", yticks=places)
    axes.set_yticklabels([row["recipe"] for row in rows])
    axes.set_xlim(left=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper left", ncols=3, markerscale=0.4)
    return svg(figure, "stages of one control step")


def wrapped(name: str) -> str:
    """A name on lines of some 20 characters, broken after underscores and at blanks: the bars keep their room."""
    lines = [""]
    for word in re.findall(r"[^_\s]*_+\s*|[^_\s]+\s*", plain(name)):
        if lines[-1] and len(lines[-1]) + len(word) > 20:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.strip() for line in lines)


def spelled(name: str) -> str:
    """A control loop's name in words."""
    return name.replace("_", " ")


def plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _mark(axes: Axes, marks: Sequence[Mapping[str, Any]]) -> None:
    """A line where each recipe lands; names are staggered so that near ones do not hide each other."""
    for number, mark in enumerate(sorted(marks, key=lambda mark: mark["latency_ms"])):
        axes.axvline(mark["latency_ms"], color=COLOURS["quiet"], linewidth=0.9, linestyle=(0, (3, 2)))
        axes.annotate(
            f"{plain(mark['recipe'])}, {mark['latency_ms']:.0f} ms",
            (mark["latency_ms"], 3 + 6.5 * (number % 6)),
            xytext=(3, 0),
            textcoords="offset points",
            color=COLOURS["quiet"],
            fontsize=7.5,
        )


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element whose width follows its container and whose colours are the page's."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    for variable, colour in COLOURS.items():
        element = element.replace(colour, f"var(--{variable})")
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
