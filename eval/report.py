"""`report.html`: one file that needs no network; videos are read and written one at a time."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eval.charts import latency_chart, success_chart
from eval.observers import verdict
from eval.results import Record
from eval.summary import text_of

EMBEDDED_BYTES = 64 * 2**20  # of videos; browsers become slow with more, so the rest is linked
GALLERY_ORDER = ("error", "timeout", "failure", "success")  # what went wrong teaches most


def write_report(folder: Path, results: Mapping[str, Any], records: Sequence[Record]) -> Path:
    """Write `report.html` into the run's folder.

    Args:
        folder: of the run; videos are read from it.
        results: the content of `results.json`.
        records: every episode.

    Returns:
        the file.
    """
    environment = Environment(loader=PackageLoader("eval"), autoescape=True, undefined=StrictUndefined)
    environment.globals.update(text_of=text_of, verdict=verdict)
    tasks = results["tasks"]
    stream = environment.get_template("report.html.j2").stream(
        results=results,
        records=sorted(records, key=lambda record: record.key),
        success=success_chart(tasks),
        latencies=[
            latency_chart(task["latency_ms"]["stages"], task["task"]) for task in tasks if task["latency_ms"]["stages"]
        ],
        gallery=gallery(folder, records),
    )
    path = folder / "report.html"
    partial = folder / "report.html.part"
    stream.dump(str(partial), encoding="utf-8")
    return partial.replace(path)


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
