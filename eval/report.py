"""`report.html`: one file that needs no network; videos are read and written one at a time."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from eval.charts import curve_chart, difference_chart, latency_chart, success_chart
from eval.latency_curve import FILE
from eval.observers import verdict
from eval.results import Record
from eval.summary import mean_of, remarks, text_of

EMBEDDED_BYTES = 64 * 2**20  # of videos; browsers become slow with more, so the rest is linked
GALLERY_ORDER = ("error", "timeout", "failure", "success")  # what went wrong teaches most


def write_report(folder: Path, results: Mapping[str, Any], records: Sequence[Record]) -> Path:
    """Write `report.html` into the run's folder.

    Args:
        folder: of the run; videos are read from it, and success against latency where it was measured.
        results: the content of `results.json`.
        records: every episode.

    Returns:
        the file.
    """
    environment = Environment(
        loader=PackageLoader("eval"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["soft"] = soft
    environment.globals.update(text_of=text_of, remarks=remarks, verdict=verdict, dict=dict)
    tasks, latency = results["tasks"], _latency(folder)
    stream = environment.get_template("report.html.j2").stream(
        results=results,
        records=sorted(records, key=lambda record: record.key),
        facts=facts(results, records),
        mean=mean_of(results),
        success=success_chart(tasks),
        heat=heat(tasks),
        differences=_differences(results.get("paired")),
        latency=latency,
        points=latency and _points(latency),
        curve=latency and _curve(latency),
        latencies=[
            latency_chart(task["latency_ms"]["stages"], task["task"]) for task in tasks if task["latency_ms"]["stages"]
        ],
        gallery=gallery(folder, records),
    )
    path = folder / "report.html"
    partial = folder / "report.html.part"
    stream.dump(str(partial), encoding="utf-8")
    return partial.replace(path)


def soft(name: str) -> Markup:
    """A name that may be broken after its underscores."""
    return escape(name).replace("_", Markup("_<wbr>"))


def facts(results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, str]:
    """What a reader wants to know first."""
    tasks = results["tasks"]
    scored, errors = sum(task["n"] for task in tasks), sum(task["errors"] for task in tasks)
    return {
        "policy": _all(record.policy or "unknown" for record in records),
        "recipe": _all(record.recipe or "unknown" for record in records),
        "tasks": tasks[0]["task"] if len(tasks) == 1 else str(len(tasks)),
        "episodes": f"{scored} scored" + (f", {errors} went wrong" if errors else ""),
    }


def heat(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tasks as columns, variants as rows, `base` first; None where a task was not run in a variant."""
    names = {name for task in tasks for name in task["per_variant"]}
    rows = {
        name: [
            {**task["per_variant"][name], "aside": name in task["not_averaged"]}
            if name in task["per_variant"]
            else None
            for task in tasks
        ]
        for name in sorted(names, key=lambda name: (name != "base", name))
    }
    return {"columns": [task["task"] for task in tasks], "rows": rows}


def gallery(folder: Path, records: Sequence[Record]) -> Iterator[tuple[Record, str]]:
    """Each filmed episode with the source of its video: a data URI, or a relative path once the file is full."""
    room = EMBEDDED_BYTES
    filmed = [record for record in records if record.video and (folder / record.video).is_file()]
    for record in sorted(filmed, key=lambda record: (GALLERY_ORDER.index(verdict(record)), record.key)):
        path = folder / record.video
        room -= path.stat().st_size
        yield record, data_uri(path) if room >= 0 else record.video


def data_uri(video: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(video.read_bytes()).decode()


def _all(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values)) or "unknown"


def _latency(folder: Path) -> dict[str, Any] | None:
    """Success against latency, if it was measured for this run."""
    path = folder / FILE
    return json.loads(path.read_text()) if path.is_file() else None


def _points(latency: Mapping[str, Any]) -> dict[float, list[Any]]:
    """Latency -> each loop's point there, or None."""
    lines = [{point["latency_ms"]: point for point in loop["points"]} for loop in latency["loops"].values()]
    return {place: [line.get(place) for line in lines] for place in sorted({place for line in lines for place in line})}


def _curve(latency: Mapping[str, Any]) -> str:
    loops = {
        name: [p for p in loop["points"] if p["success_rate"] is not None] for name, loop in latency["loops"].items()
    }
    return curve_chart(loops, latency["marks"])


def _differences(paired: Mapping[str, Any] | None) -> str:
    return difference_chart(paired["tasks"]) if paired else ""
