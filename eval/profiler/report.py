"""A profile as tables for the terminal, and as one page with a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group
from rich.table import Table
from rich.text import Text

from eval.charts import stages_chart
from eval.profiler.latency import PARTS, PERCENTILES, STAGES, TOTAL
from eval.results import write_atomically

Row = Mapping[str, Any]


def tables(content: Mapping[str, Any]) -> Group:
    """What the terminal shows."""
    rows, meta = content["rows"], content["meta"]
    shown = [table(cells, title) for title, cells in sheets(rows).items()]
    careful = [Text(f"careful: {caution}", style="yellow") for caution in meta["cautions"]]
    return Group(*shown, Text(caption(rows, meta)), *careful)


def sheets(rows: Sequence[Row]) -> dict[str, list[list[str]]]:
    """Every table by its title."""
    found = {"One control step": latency_cells(rows), "Speed": speed_cells(rows), "Memory": memory_cells(rows)}
    return found | ({"Decoding": decoding_cells(rows)} if any(row.get("decoding") for row in rows) else {})


def write_page(path: Path, content: Mapping[str, Any]) -> None:
    """Write `profile.html`: one file that needs no network."""
    environment = Environment(loader=PackageLoader("eval"), autoescape=True, undefined=StrictUndefined)
    rows, meta = content["rows"], content["meta"]
    page = environment.get_template("profile.html.j2").render(
        meta=meta,
        picture=stages_chart(rows, STAGES),
        sheets=sheets(rows),
        caption=caption(rows, meta),
        best=min(rows, key=lambda row: row["stages_ms"][TOTAL]["p50"]),
    )
    write_atomically(path, page)


def latency_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Milliseconds and operations: a header, then a line for each recipe and stage."""
    lines = [["recipe", "stage", *(f"p{q} [ms]" for q in PERCENTILES), "GFLOPs", "% of total"]]
    for row in rows:
        total = row["stages_ms"][TOTAL]["p50"]
        parts = [part for part in PARTS if part in row["stages_ms"]]
        for stage in (*STAGES, *parts, TOTAL):
            ms = row["stages_ms"][stage]
            gflops = {**row["stages_gflops"], TOTAL: row["gflops"]}.get(stage)
            cells = [f"{ms[f'p{q}']:.2f}" for q in PERCENTILES]
            cells += ["" if gflops is None else f"{gflops:.2f}", f"{100 * ms['p50'] / total:.0f}"]
            lines.append([row["recipe"], f"of these: {stage}" if stage in parts else stage, *cells])
    return lines


def speed_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Speedup and floor: a header, then a line for each recipe."""
    lines = [["recipe", "speedup", "95% CI", "floor [ms]", "x floor", "first [ms]", "difference"]]
    for row in rows:
        low, high = row["speedup_ci95"]
        lines.append(
            [
                row["recipe"],
                f"{row['speedup']:.2f}",
                f"[{low:.2f}, {high:.2f}]",
                f"{row['floor_ms']:.2f}",
                f"{row['stages_ms'][TOTAL]['p50'] / row['floor_ms']:.1f}",
                f"{row['first_answer_ms']:.0f}",
                f"{row['difference']:.1e}",
            ]
        )
    return lines


def memory_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Size and memory: a header, then a line for each recipe."""
    header = ["recipe", "parameters", "weights [MB]", "read [MB]", "peak [MB]"]
    keys = ("weight_bytes", "read_bytes", "peak_bytes")
    counts = [f"{row['parameters'] / 1e6:.2f} M" for row in rows]
    cells = [[row["recipe"], n, *(f"{row[k] / 1e6:.0f}" for k in keys)] for row, n in zip(rows, counts, strict=True)]
    return [header, *cells]


def decoding_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Passes of the language model for one chunk of words: a header, then a line for each recipe that says words."""
    header = ["recipe", "passes", "words per pass", "acceptance length"]
    keys = ("passes", "words_per_pass", "acceptance_length")
    said = [(row["recipe"], row["decoding"]) for row in rows if row.get("decoding")]
    return [header, *([recipe, *(f"{found[key]:.2f}" for key in keys)] for recipe, found in said)]


def table(lines: Sequence[Sequence[str]], title: str) -> Table:
    """A header and lines; a recipe is named where it begins."""
    shown = Table(title=title)
    for name in lines[0]:
        shown.add_column(name, justify="left" if name in ("recipe", "stage") else "right")
    before = ""
    for line in lines[1:]:
        if line[0] == before:
            shown.add_row("", *line[1:])
        else:
            shown.add_section()
            shown.add_row(*line)
        before = line[0]
    return shown


def caption(rows: Sequence[Row], meta: Mapping[str, Any]) -> str:
    """What was measured, where and how, in a few sentences."""
    ceilings, yardstick = meta["ceilings"], meta["yardstick_ms"]
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {dtype}" for dtype, rate in ceilings["flops_per_second"].items())
    covered = ", ".join(f"{100 * row['stages_of_total']:.0f} % ({row['recipe']})" for row in rows)
    return (
        f"{rows[0]['model']}, {rows[0]['dtype']}, on {meta['device']}, "
        f"{meta['threads']} thread(s) of {meta['machine']['cores']} core(s). {meta['rounds']} answers of each recipe "
        f"with stage timers and as many without, in turns, after {meta['warm_up']} to warm up. Total is end to end, "
        f"without stage timers; the stages add up to {covered} of it. Ceilings measured here: {rates}; reading "
        f"{ceilings['bytes_per_second'] / 1e9:.1f} GB/s. Noise of the machine: the same product took p50 "
        f"{yardstick['p50']:.2f}, p90 {yardstick['p90']:.2f}, p99 {yardstick['p99']:.2f} ms."
    )
