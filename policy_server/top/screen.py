"""What `cadence-top` shows: a server's `metrics` as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vla.api import PolicySpec

MISSING = "-"


def screen(endpoint: str, spec: PolicySpec, metrics: Mapping[str, Any], answered_in_ms: float) -> RenderableType:
    """Everything, from top to bottom.

    Args:
        endpoint: of the server.
        spec: of its policy.
        metrics: body of a reply to `metrics`.
        answered_in_ms: how long that reply took.
    """
    policy = f"{spec.model} · recipe {spec.recipe}" + (f" · {spec.checkpoint[:12]}" if spec.checkpoint else "")
    title = Text(f"{endpoint}   {policy}   up {duration(metrics['uptime'])}   answered in {answered_in_ms:.1f} ms")
    parts = [title, _now(metrics), _outcomes(metrics), _stages(metrics["stages"]), _robots(metrics["robots"])]
    return Group(*parts, *_watchers(metrics["watchers"]))


def silence(endpoint: str, error: Exception) -> RenderableType:
    """What is shown while the server does not answer."""
    return Text(f"{endpoint}: {error}", style="bold red")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def mebibytes(count: int | None) -> str:
    """A number of bytes in MiB."""
    return MISSING if count is None else f"{count / 2**20:.0f} MiB"


def milliseconds(value: float | None) -> str:
    """With as many digits as matter."""
    return MISSING if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _now(metrics: Mapping[str, Any]) -> Table:
    gpu = metrics["gpu_bytes"]
    columns = {
        "answers/s": f"{metrics['rate']:.1f}",
        "running for": milliseconds(metrics["busy_ms"]),
        "waiting": str(metrics["pending"]),
        "oldest waits": milliseconds(metrics["queue_age_ms"]),
        "sessions": str(metrics["sessions"]),
        "memory": mebibytes(metrics["resident_bytes"]),
        "GPU in use / peak": MISSING if gpu is None else f"{mebibytes(gpu['allocated'])} / {mebibytes(gpu['peak'])}",
    }
    return _table(list(columns), [list(columns.values())])


def _outcomes(metrics: Mapping[str, Any]) -> Table:
    found = {**metrics["outcomes"], "answered late": metrics["late"]}
    return _table([escape(name) for name in found], [[str(count) for count in found.values()]])


def _stages(stages: Mapping[str, Mapping[str, float]]) -> Table:
    names = ("p50", "p90", "p99")
    rows = [[escape(stage), str(one["n"]), *(f"{one[name]:.2f}" for name in names)] for stage, one in stages.items()]
    return _table(["stage", "answers", *(f"{name} [ms]".replace("[", r"\[") for name in names)], rows)


def _robots(robots: Sequence[Sequence[Any]]) -> Table:
    rows = [[escape(str(name)), str(count), f"{idle:.1f} s ago"] for name, count, idle in robots]
    return _table(["session", "answers", "last"], rows)


def _watchers(reports: Sequence[Mapping[str, Any]]) -> list[Table]:
    return [
        _table([escape(key) for key in report], [[escape(str(value)) for value in report.values()]])
        for report in reports
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, header_style="bold", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
