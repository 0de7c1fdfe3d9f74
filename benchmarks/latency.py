"""How many milliseconds is a point of success worth? Success against latency, for each control loop; resumable.

    python benchmarks/latency.py --out runs/latency --profile runs/profile/profile.json policy=served \
        'tasks=[conveyor_widowx]' starts=random episodes=100 video=false

Every point is one `cadence-eval realtime=true` in a folder of its own below --out, on the same starts; run it again to
continue. It writes --out/latency.json and --out/report.html: the run with the least latency, its videos, and the curve
with a mark where each recipe of --profile lands, and one where the served recipe was measured here.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.charts import spelled
from eval.latency_curve import FILE, Point, curve
from eval.machine import describe
from eval.markdown import table
from eval.report import write_report
from eval.results import Record, parse_records, write_atomically
from eval.rollout import ROUND_TRIP
from eval.scoring import scored
from eval.settings import LOOPS
from eval.statistics import percentile
from eval.summary import samples_of
from vla.api import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; exit status 2 on wrong usage, 1 if an episode ended in an error."""
    asked, keys = _parser().parse_known_args(arguments)
    keys = [key for key in keys if key != "--"]
    places = [(loop, latency) for loop in asked.loops for latency in asked.latencies]
    try:
        profiled = marks_of(asked.profile)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    status = 0
    for loop, latency in places:
        print(f"== {spelled(loop)}, {latency:g} ms", flush=True)
        command = [sys.executable, "-m", "eval", *keys, "realtime=true", f"loop={loop}", f"latency_ms={latency:g}"]
        ended = subprocess.run([*command, f"out={folder(asked.out, loop, latency)}"], check=False).returncode
        if ended == 2:
            return ended
        status = max(status, ended)
    try:
        content = summarise(asked.out, places, profiled)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return status or 1
    print(f"\n{markdown(content)}\n" + "\n".join(content["words"]) + f"\nreport: {asked.out / 'report.html'}")
    return status


def summarise(out: Path, places: Sequence[tuple[str, float]], profiled: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write `latency.json` and `report.html` of finished points; returns the content of the former.

    Args:
        profiled: marks of recipes.

    Raises:
        InputError: if a point has no results.
    """
    for loop, latency in places:
        if not (folder(out, loop, latency) / "results.json").is_file():
            raise InputError(
                f"{spelled(loop)}, {latency:g} ms has no results: its cadence-eval ended early, as it says above; "
                "run the same command again to continue"
            )
    homes = {place: folder(out, *place) for place in places}
    records = {place: _records(home) for place, home in homes.items()}
    points = [Point(*place, scored(records[place], _starts(home), {})) for place, home in homes.items()]
    marks = [*profiled, *_measured([record for each in records.values() for record in each])]
    content = curve(points, marks, describe(sys.argv, ""))
    write_atomically(out / FILE, json.dumps(content, indent=2) + "\n")
    first = min(places, key=lambda place: place[1])
    results = json.loads((homes[first] / "results.json").read_text())
    below = homes[first].relative_to(out)
    shown = [replace(each, video=str(below / each.video)) if each.video else each for each in records[first]]
    write_report(out, results, shown)
    return content


def folder(out: Path, loop: str, latency_ms: float) -> Path:
    """Of one point."""
    return out / f"{loop}_{latency_ms:g}ms"


def markdown(content: dict[str, Any]) -> str:
    """The curve as a table to paste."""
    lines = [
        [spelled(name), f"{point['latency_ms']:g}", str(point["n"]), _share(point)]
        for name, loop in content["loops"].items()
        for point in loop["points"]
    ]
    return table(("Loop", "Latency [ms]", "n", "Success (last step) [95% CI]"), lines)


def _share(point: dict[str, Any]) -> str:
    if point["success_rate"] is None:
        return "-"
    low, high = point["ci95"]
    return f"{point['success_rate']:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _records(path: Path) -> list[Record]:
    return list(parse_records((path / "episodes.jsonl").read_bytes(), path / "episodes.jsonl").values())


def _starts(path: Path) -> str:
    """Of which kind a run's starts are."""
    return json.loads((path / "run.json").read_text())["starts"]


def marks_of(path: Path | None) -> list[dict[str, Any]]:
    """A mark for each recipe of a `profile.json`.

    Raises:
        InputError: if it is none.
    """
    if path is None:
        return []
    try:
        rows = json.loads(path.read_text())["rows"]
        return [
            {"recipe": row["recipe"], "latency_ms": row["stages_ms"]["total"]["p50"], "source": str(path)}
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"--profile {path} is no profile.json ({error!r}); make one: cadence-profile out=<folder>"
        ) from error


def _measured(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A mark where the recipe that was run here answered, the wire included."""
    samples = samples_of(records).get(ROUND_TRIP)
    if not samples:
        return []
    recipe = ", ".join(sorted({record.recipe for record in records}))
    return [{"recipe": recipe, "latency_ms": percentile(samples, 50), "source": "round trips of these runs"}]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Further keys: cadence-eval's.",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--latencies", type=float, nargs="+", default=[0, 100, 200, 400, 800], help="[ms]")
    parser.add_argument("--loops", nargs="+", default=list(LOOPS), choices=LOOPS)
    parser.add_argument("--profile", type=Path, help="profile.json whose recipes are marked")
    return parser


if __name__ == "__main__":
    sys.exit(main())
