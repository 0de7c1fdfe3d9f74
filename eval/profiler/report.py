"""A profile as `profile.json` and as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from eval.profiler.latency import PERCENTILES, STAGES, TOTAL

METHOD = (
    "batch of one; recipes in turns (A B, B A, ...) after warm-up; stages and total come from different answers, total "
    "without stage timers; speedup is the median over rounds, its range what 80 % of rounds lie between; peak_bytes "
    "on cpu is the resident memory of the whole process, on cuda what is allocated on the device; floor_ms is the "
    "larger of weight bytes / reading rate and operations / product rate, as measured in this run; one multiplication "
    "and one addition are two operations"
)


def tables(rows: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> Group:
    """What the terminal shows."""
    return Group(latency_table(rows), cost_table(rows), Text(_caption(rows, meta)))


def latency_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Milliseconds and operations, a line for each recipe and stage."""
    table = Table(title="One control step")
    table.add_column("recipe")
    table.add_column("stage")
    for name in (*(f"p{q} [ms]" for q in PERCENTILES), "GFLOPs", "% of total"):
        table.add_column(name, justify="right")
    for row in rows:
        total = row["stages_ms"][TOTAL]["p50"]
        for stage in (*STAGES, TOTAL):
            ms = row["stages_ms"][stage]
            gflops = row["gflops"] if stage == TOTAL else row["stages_gflops"][stage]
            cells = [f"{ms[f'p{q}']:.2f}" for q in PERCENTILES] + [f"{gflops:.3f}", f"{100 * ms['p50'] / total:.0f}"]
            table.add_row(row["recipe"] if stage == STAGES[0] else "", stage, *cells, end_section=stage == TOTAL)
    return table


def cost_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Size, memory, floor and speedup, a line for each recipe."""
    table = Table(title="Cost")
    table.add_column("recipe")
    for name in ("parameters", "weights [MB]", "peak [MB]", "floor [ms]", "speedup"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = row["speedup_range"]
        table.add_row(
            row["recipe"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['weight_bytes'] / 1e6:.1f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['floor_ms']:.2f}",
            f"{row['speedup']:.2f} [{low:.2f}, {high:.2f}]",
        )
    return table


def _caption(rows: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> str:
    rates = ", ".join(
        f"{rate / 1e9:.0f} GFLOP/s in {dtype}" for dtype, rate in meta["ceilings"]["flops_per_second"].items()
    )
    covered = ", ".join(f"{100 * row['stages_of_total']:.0f} %" for row in rows)
    return (
        f"{rows[0]['model']} on {meta['device']}, {rows[0]['dtype']}, {meta['threads']} thread(s). Ceilings measured "
        f"here: {rates}, reading {meta['ceilings']['bytes_per_second'] / 1e9:.1f} GB/s. {meta['repeats']} answers of "
        f"each recipe in turns, {meta['warm_up']} to warm up. Total is measured without stage timers; the stages "
        f"add up to {covered} of it."
    )
