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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cadence_configs.command import WRONG_USAGE
from eval.compare.comparison import compare
from eval.compare.runs import check_starts, read
from eval.results import write_atomically
from eval.settings import MARGIN
from eval.several import MEASURE
from vla import recipe as recipes

REFUSED = "refused"  # a recipe that does not fit this model: nothing is wrong with the others
FRONT, OTHERS = "#1f5f8b", "#8a949e"


@dataclass(frozen=True)
class Point:
    """One recipe.

    Attributes:
        milliseconds: median of one answer, end to end.
        success, low, high: rate and its 95% interval.
        difference: from the first recipe on the same starts; None for itself.
        on_front: no other recipe is faster with at least this success.
    """

    recipe: str
    milliseconds: float
    success: float
    low: float
    high: float
    difference: float | None
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
        found.append(Point(**{**asdict(point), "on_front": point.success > best}))
        best = max(best, point.success)
    return found


def draw(points: Sequence[Point]) -> Figure:
    """Every recipe with its interval; the front as a line."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    front = [point for point in points if point.on_front]
    axes.plot(
        [point.milliseconds for point in front], [100 * point.success for point in front], color=FRONT, linewidth=1.2,
        drawstyle="steps-post", label="Pareto front", zorder=1,
    )  # fmt: skip
    for number, point in enumerate(points):
        colour = FRONT if point.on_front else OTHERS
        below, above = point.success - point.low, point.high - point.success
        axes.errorbar(
            point.milliseconds, 100 * point.success, yerr=[[100 * below], [100 * above]], fmt="o", color=colour,
            markersize=6, elinewidth=0.7, capsize=2, zorder=2,
        )  # fmt: skip
        offset = (5, 6 if number % 2 else -11)
        axes.annotate(
            point.recipe, (point.milliseconds, 100 * point.success), offset, textcoords="offset points", fontsize=8,
            color=colour,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="one answer, median [ms]", ylabel="success at the last step [%], 95% interval")
    axes.set_xticks([point.milliseconds for point in front], [f"{point.milliseconds:.3g}" for point in front])
    axes.minorticks_off()
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(frameon=False, loc="lower right")
    return figure


def table(points: Sequence[Point]) -> str:
    """Markdown."""
    lines = ["| recipe | ms | success | 95% interval | difference | on the front |", "|---|---|---|---|---|---|"]
    for point in points:
        change = "-" if point.difference is None else f"{100 * point.difference:+.1f}"
        interval = f"[{100 * point.low:.1f}, {100 * point.high:.1f}]"
        front = "yes" if point.on_front else ""
        cells = (point.recipe, f"{point.milliseconds:.1f}", f"{100 * point.success:.1f}", interval, change, front)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
    if set(names) <= set(_milliseconds(out)):
        return
    command = [_beside("cadence-profile"), f"accel=[{','.join(names)}]", f"out={out / 'profile'}", *keys]
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


def _milliseconds(out: Path) -> dict[str, float]:
    path = out / "profile" / "profile.json"
    if not path.is_file():
        return {}
    return {row["recipe"]: row["stages_ms"]["total"]["p50"] for row in json.loads(path.read_text())["rows"]}


def _points(names: Sequence[str], out: Path) -> list[Point]:
    runs = [read(out / name, name) for name in names]
    check_starts(runs)
    content = compare(runs, MEASURE, MARGIN)
    milliseconds = _milliseconds(out)
    apart = {each["run"]: each["overall"]["difference"] for each in content["comparisons"]}
    return [_point(run, milliseconds, apart) for run in content["runs"] if run["name"] in milliseconds]


def _point(run: Mapping[str, Any], milliseconds: Mapping[str, float], apart: Mapping[str, float]) -> Point:
    name, mean = run["name"], run["mean"]
    low, high = mean["ci95"] if len(run["tasks"]) > 1 else run["tasks"][0]["ci95"]
    return Point(name, milliseconds[name], mean["success_rate"], low, high, apart.get(name))


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
