"""Charts of the report as inline SVG, drawn so that their text is readable on a phone."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

WIDTH = 4.6  # [inch]; at 72 points an inch this is the width of a phone's screen, so text keeps its size there
COLOURS = {"last step": "#1f5f8b", "any step": "#8fb8d6", "strict": "#e08a3c"}

STAGE_COLOURS = ("#8fb8d6", "#1f5f8b", "#e08a3c")


def success_chart(tasks: Sequence[Mapping[str, Any]]) -> str:
    """A bar per task and measure with its 95% interval; SVG."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.95 * len(tasks)), layout="constrained")
    axes = figure.subplots()
    for offset, (measure, colour) in enumerate(COLOURS.items()):
        for row, task in enumerate(tasks):
            measured = {"last step": task, "any step": task["any_step"], "strict": task["strict"]}[measure]
            if not measured["n"]:
                continue
            share, (low, high) = 100 * measured["success_rate"], measured["ci95"]
            reach = [[share - 100 * low], [100 * high - share]]
            place = row + 0.27 * (offset - 1)
            axes.barh(place, share, height=0.24, color=colour)
            axes.errorbar(share, place, xerr=reach, color="#222222", capsize=2.5, linewidth=1)
    axes.set(xlim=(0, 100), xlabel="success [%] with 95% interval", yticks=range(len(tasks)))
    axes.set_yticklabels([wrapped(task["task"]) for task in tasks])
    axes.invert_yaxis()
    legend = [Patch(color=colour, label=measure) for measure, colour in COLOURS.items()]
    figure.legend(handles=legend, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return svg(figure, "success")


def latency_chart(stages: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Median of each stage as a bar, its 99th percentile as a tick; SVG."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(stages)), layout="constrained")
    axes = figure.subplots()
    names = list(stages)
    axes.barh(names, [stages[name]["p50"] for name in names], height=0.55, color="#1f5f8b", label="p50")
    axes.plot([stages[name]["p99"] for name in names], names, "|", color="#c0392b", markersize=11, label="p99")
    axes.set(xlabel=f"one answer [ms], {title}")
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return svg(figure, f"latency {title}")


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
    marks = [("p50", "#222222"), ("p99", "#c0392b")]
    for name, colour in marks:
        times = [row["stages_ms"]["total"][name] for row in rows]
        axes.plot(times, places, "|", color=colour, markersize=24, markeredgewidth=1.5, label=f"total, {name}")
    axes.plot([row["floor_ms"] for row in rows], places, "D", color="#1e7d4b", markersize=4, label="floor")
    axes.set(xlabel="one control step [ms]", yticks=places)
    axes.set_yticklabels([row["recipe"] for row in rows])
    axes.set_xlim(left=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8, markerscale=0.4)
    return svg(figure, "stages of one control step")


def wrapped(name: str) -> str:
    """Break a long task name after its robot, so that the bars keep their room."""
    return name.replace("_", "\n", 1)


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element whose width follows its container."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(8)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    return element.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
