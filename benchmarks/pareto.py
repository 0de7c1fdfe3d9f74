"""Success against milliseconds for every recipe, and which recipes no other one beats in both.

    python benchmarks/pareto.py runs/pareto                                     every recipe, official starts
    python benchmarks/pareto.py runs/pareto --recipes none efficientvla fast --eval starts=random episodes=200
    python benchmarks/pareto.py runs/pareto --draw                              only draw what is there

All recipes run on the same starts; the first is what the others are compared with. Run the same command again to go on
after an interruption: finished episodes and the finished profile are kept. Milliseconds are those of cadence-profile,
all recipes in turns in one process on an otherwise idle machine: take them when nothing else runs.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cadence_configs.command import WRONG_USAGE
from eval import markdown
from eval.compare.comparison import compare
from eval.compare.runs import check_starts, read
from eval.results import write_atomically
from eval.settings import MARGIN
from eval.several import MEASURE
from vla import recipe as recipes

REFUSED = "refused"  # a recipe that does not fit this model: nothing is wrong with the others
FRONT, OTHERS = "#1f5f8b", "#8a949e"


@dataclass(frozen=True)
class Apart:
    """Difference of two rates on the same starts, its 95% interval, and the p of an exact McNemar test."""

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Point:
    """One recipe.

    Attributes:
        milliseconds: median of one answer, end to end.
        success, low, high: rate and its 95% interval.
        gflops, parameters: counted.
        episodes: that the rate is of.
        apart: how far it is from the first recipe on the same starts; None for itself.
        on_front: no other recipe is faster with at least this success.
    """

    recipe: str
    milliseconds: float
    success: float
    low: float
    high: float
    gflops: float
    parameters: int
    episodes: int
    apart: Apart | None = None
    on_front: bool = False


def main() -> int:
    """Run what is missing, draw, print; exit status 1 if a recipe that fits the model was not run to its end."""
    given = _arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    wanted = given.recipes or recipes.names()
    left_out = {} if given.draw else _evaluate(wanted, given.out, given.eval)
    there = [name for name in wanted if (given.out / name / "results.json").is_file() and name not in left_out]
    if len(there) < 2:
        print("a comparison needs at least two finished recipes")
        return 1
    if not given.draw:
        _profile(there, given.out, given.profile)
    points = marked(_points(there, given.out))
    write_atomically(given.out / "pareto.json", json.dumps([asdict(point) for point in points], indent=2) + "\n")
    for ending in ("png", "svg"):
        draw(points).savefig(given.out / f"pareto.{ending}", dpi=150)
    print(table(points))
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    return int(not all(reason.startswith(REFUSED) for reason in left_out.values()))


def marked(points: Sequence[Point]) -> list[Point]:
    """The points in the order of their milliseconds, those on the front marked."""
    ordered = sorted(points, key=lambda point: (point.milliseconds, -point.success))
    best, found = -1.0, []
    for point in ordered:
        found.append(replace(point, on_front=point.success > best))
        best = max(best, point.success)
    return found


def draw(points: Sequence[Point]) -> Figure:
    """Every recipe with its interval; the front as a line."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    axes = figure.subplots()
    front = [point for point in points if point.on_front]
    axes.plot(
        [point.milliseconds for point in front], [100 * point.success for point in front], color=FRONT, linewidth=1.2,
        drawstyle="steps-post", label="Pareto front", zorder=1,
    )  # fmt: skip
    for point in points:
        colour = FRONT if point.on_front else OTHERS
        below, above = point.success - point.low, point.high - point.success
        axes.errorbar(
            point.milliseconds, 100 * point.success, yerr=[[100 * below], [100 * above]], fmt="o", color=colour,
            markersize=6, elinewidth=0.7, capsize=2, zorder=2,
        )  # fmt: skip
        axes.annotate(
            point.recipe, (point.milliseconds, 100 * point.success), (4, 4), textcoords="offset points", fontsize=7,
            color=colour, rotation=50, rotation_mode="anchor", zorder=1.5,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip
    axes.set(xlabel="one answer, median [ms]", ylabel="success at the last step [%], 95% interval")
    axes.margins(x=0.08, y=0.1)
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(frameon=False, loc="lower right")
    return figure


def table(points: Sequence[Point]) -> str:
    """Markdown."""
    return markdown.table(_HEADER, [_cells(point) for point in points])


_HEADER = (
    "Recipe",
    "ms",
    "GFLOP",
    "M parameters",
    "n",
    "success, %",
    "difference, points",
    "McNemar p",
    "on the front",
)


def _cells(point: Point) -> list[str]:
    numbers = [f"{point.milliseconds:.1f}", f"{point.gflops:.2f}", f"{point.parameters / 1e6:.2f}"]
    success = f"{100 * point.success:.1f} [{100 * point.low:.0f}, {100 * point.high:.0f}]"
    apart = point.apart
    change = ["-", "-"]
    if apart is not None:
        between = f"[{100 * apart.low:.1f}, {100 * apart.high:.1f}]"
        change = [f"{100 * apart.difference:+.1f} {between}", "<0.001" if apart.p < 1e-3 else f"{apart.p:.3f}"]
    return [point.recipe, *numbers, str(point.episodes), success, *change, "yes" if point.on_front else ""]


def _evaluate(names: Sequence[str], out: Path, keys: Sequence[str]) -> dict[str, str]:
    """Run the missing episodes of each; recipe -> why it is left out."""
    left_out = {}
    for name in names:
        command = [_beside("cadence-eval"), f"accel={name}", f"out={out / name}", "video=false", *keys]
        print(" ".join(command), flush=True)
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            kind = REFUSED if done.returncode == WRONG_USAGE else "not finished, run again"
            left_out[name] = f"{kind}: {(done.stderr.strip().splitlines() or [''])[-1]}"
    return left_out


def _profile(names: Sequence[str], out: Path, keys: Sequence[str]) -> None:
    """Measure milliseconds, unless they are there for all of these recipes."""
    if set(names) <= set(_profiled(out)):
        return
    command = [_beside("cadence-profile"), f"accel=[{','.join(names)}]", f"out={out / 'profile'}", *keys]
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


def _profiled(out: Path) -> dict[str, Any]:
    """Recipe -> its row of the profile."""
    path = out / "profile" / "profile.json"
    if not path.is_file():
        return {}
    return {row["recipe"]: row for row in json.loads(path.read_text())["rows"]}


def _points(names: Sequence[str], out: Path) -> list[Point]:
    runs = [read(out / name, name) for name in names]
    check_starts(runs)
    content = compare(runs, MEASURE, MARGIN)
    profiled = _profiled(out)
    apart = {each["run"]: _apart(each["overall"]) for each in content["comparisons"]}
    return [
        _point(run, profiled[run["name"]], apart.get(run["name"])) for run in content["runs"] if run["name"] in profiled
    ]


def _apart(overall: Mapping[str, Any]) -> Apart:
    low, high = overall["ci95"]
    return Apart(overall["difference"], low, high, overall["p_value"])


def _point(run: Mapping[str, Any], row: Mapping[str, Any], apart: Apart | None) -> Point:
    mean = run["mean"]
    low, high = mean["ci95"] if len(run["tasks"]) > 1 else run["tasks"][0]["ci95"]
    counted = (row["gflops"], row["parameters"], mean["n"])
    return Point(run["name"], row["stages_ms"]["total"]["p50"], mean["success_rate"], low, high, *counted, apart)


def _beside(command: str) -> str:
    """The console script of this interpreter's environment."""
    return str(Path(sys.executable).with_name(command))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of all runs, the profile and the picture")
    parser.add_argument("--recipes", nargs="+", help="the first is the baseline; all recipes if left out")
    parser.add_argument("--eval", nargs="+", default=[], metavar="KEY=VALUE", help="keys of cadence-eval")
    parser.add_argument("--profile", nargs="+", default=[], metavar="KEY=VALUE", help="keys of cadence-profile")
    parser.add_argument("--draw", action="store_true", help="run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
