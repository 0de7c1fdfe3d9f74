"""What `cadence-top` shows: a server's `metrics`, in a terminal of any width.

Everything that a server says is cleaned first: it repeats what strangers call themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Group, RenderableType
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
    title = f"{endpoint}   {policy}   up {duration(metrics['uptime'])}   answered in {answered_in_ms:.1f} ms"
    parts = [Text(clean(title)), _now(metrics), _outcomes(metrics)]
    parts += [_stages(metrics["stages"]), _robots(metrics["robots"])]
    return Group(*parts, *(_figures(report) for report in metrics["watchers"]))


def silence(endpoint: str, error: Exception) -> RenderableType:
    """What is shown while the server does not answer."""
    return Text(clean(f"{endpoint}: {error}"), style="bold red")


def clean(text: object) -> str:
    """Text that a terminal shows and does not obey: what cannot be printed becomes its escape in Python."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))


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


def _now(metrics: Mapping[str, Any]) -> Columns:
    gpu = metrics["gpu_bytes"]
    figures = {
        "answers/s": f"{metrics['rate']:.1f}",
        "running for": milliseconds(metrics["busy_ms"]),
        "waiting": metrics["pending"],
        "oldest waits": milliseconds(metrics["queue_age_ms"]),
        "sessions": metrics["sessions"],
        "memory": mebibytes(metrics["resident_bytes"]),
        "GPU in use / peak": MISSING if gpu is None else f"{mebibytes(gpu['allocated'])} / {mebibytes(gpu['peak'])}",
    }
    return _figures(figures)


def _outcomes(metrics: Mapping[str, Any]) -> Columns:
    return _figures({**metrics["outcomes"], "answered late": metrics["late"]})


def _stages(stages: Mapping[str, Mapping[str, float]]) -> Table:
    names = ("p50", "p90", "p99")
    rows = [[stage, one["n"], *(f"{one[name]:.2f}" for name in names)] for stage, one in stages.items()]
    return _table(["stage", "answers", *(f"{name} [ms]" for name in names)], rows)


def _robots(robots: Sequence[Sequence[Any]]) -> Table:
    return _table(["session", "answers", "last"], [[name, count, f"{idle:.1f} s ago"] for name, count, idle in robots])


def _figures(figures: Mapping[str, object]) -> Columns:
    """Each value below its name, as many beside each other as there is room for."""
    cells = [Text.assemble((clean(name), "bold"), "\n", clean(value)) for name, value in figures.items()]
    return Columns(cells, padding=(0, 2))


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(Text(column), header_style="bold", overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(value)) for value in row))
    return table
