"""A comparison as tables: for the terminal, and as Markdown to paste into a paper."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from eval import markdown
from eval.summary import text_of

MEAN = "mean over tasks"
PAIRED = ("difference", "average", "average interval", "p", "Holm", "non-inferior")
SHOWN = ("rates", "difference", "average", "average interval", "p", "Holm", "non-inferior", "sequential")


class Sheet(NamedTuple):
    """One table, however it is shown; the first `left` columns are text."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int = 1


def tables(content: Mapping[str, Any]) -> Group:
    """What the terminal shows."""
    several = len(content["runs"][0]["tasks"]) > 1
    mean = [f"{MEAN}: {content['methods'][name]}" for name in ("average", "average interval") if several]
    notes = [*verdicts(content), *content["notes"], *mean]
    return Group(*map(_rich, sheets(content)), *(Text(f"- {note}") for note in notes))


def as_markdown(content: Mapping[str, Any]) -> str:
    """The content of `compare.md`."""
    parts = [
        f"### {sheet.title}\n\n{markdown.table(sheet.header, sheet.rows, sheet.left)}" for sheet in sheets(content)
    ]
    methods = [f"{name}: {content['methods'][name]}" for name in SHOWN]
    real = [content["real"]["convention"]] if content["real"] else []
    made = f"Cadence {content['meta']['version']}: `{content['meta']['command']}`"
    notes = [*verdicts(content), *content["notes"], f"convention: {content['convention']}", *methods, *real, made]
    return "\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def paired_tables(results: Mapping[str, Any]) -> list[Table]:
    """What the terminal shows of the comparison in a `results.json`; empty without one."""
    return [_rich(sheet) for sheet in _paired(results)]


def paired_markdown(results: Mapping[str, Any]) -> str:
    """The same for `results.md`, with how it was computed."""
    from eval.compare.comparison import METHODS  # scipy takes a second to import

    methods = "".join(f"- {name}: {METHODS[name]}\n" for name in PAIRED)
    return "".join(
        f"\n### {sheet.title}\n\n{markdown.table(sheet.header, sheet.rows, sheet.left)}\n{methods}"
        for sheet in _paired(results)
    )


def _paired(results: Mapping[str, Any]) -> list[Sheet]:
    if not (paired := results.get("paired")):
        return []
    return [differences({**paired, "run": "this run", "overall": paired}, paired)]


def sheets(content: Mapping[str, Any]) -> list[Sheet]:
    """Every table of a comparison."""
    found = [what(content["runs"]), rates(content)] + [
        differences(comparison, content) for comparison in content["comparisons"]
    ]
    return found + ([agreement(content["real"])] if content["real"] else [])


def what(runs: Sequence[Mapping[str, Any]]) -> Sheet:
    """A row per run: its folder, and what makes it another run than the others."""
    identities = [run["identity"] for run in runs]
    known = dict.fromkeys(key for identity in identities for key in identity)
    differing = [key for key in known if len({str(identity.get(key)) for identity in identities}) > 1]
    rows = [[run["name"], run["path"], *(_short(run["identity"].get(key)) for key in differing)] for run in runs]
    return Sheet("Runs, the baseline first", ["Run", "Folder", *differing], rows, left=2 + len(differing))


def rates(content: Mapping[str, Any]) -> Sheet:
    """A row per task, a column per run."""
    runs = content["runs"]
    several = list(zip(*(run["tasks"] for run in runs), strict=True))
    rows = [[tasks[0]["task"], _count(tasks[0]), *map(text_of, tasks)] for tasks in several]
    means = [f"{run['mean']['success_rate']:.1%} {_percent(run['mean']['ci95'])}" for run in runs]
    rows += [[MEAN, str(runs[0]["mean"]["n"]), *means]] if len(rows) > 1 else []
    return Sheet(f"Rate of {content['convention']} [95% CI]", ["Task", "n", *(run["name"] for run in runs)], rows)


def differences(comparison: Mapping[str, Any], content: Mapping[str, Any]) -> Sheet:
    """A row per task, and one for their average."""
    run, baseline = comparison["run"], comparison["baseline"]
    header = ["Task", "n", "Points", "95% CI", "Won / lost", "p", "Holm p", "Non-inf."]
    named: list[tuple[str, Mapping[str, Any]]] = [(task["task"], task) for task in comparison["tasks"]]
    named += [(MEAN, comparison["overall"])] if len(named) > 1 else []
    title = f"{run} minus {baseline} [percentage points]; non-inferior at a margin of {100 * content['margin']:g}"
    return Sheet(title, header, [_difference_row(*each) for each in named])


def agreement(real: Mapping[str, Any]) -> Sheet:
    """A row per task that was run on the robot too."""
    header = ["Task", *(f"{policy}: sim / real" for policy in real["policies"]), "MMRV", "r"]
    rows = []
    for task in real["tasks"]:
        pairs = [f"{each['sim']['success_rate']:.3f} / {each['real']['success_rate']:.3f}" for each in task["policies"]]
        rows.append([task["task"], *pairs, f"{task['mmrv']:.3f}", _or_dash(task["pearson"])])
    if len(rows) > 1:
        rows.append([MEAN, *[""] * len(real["policies"]), f"{real['mean_mmrv']:.3f}", _or_dash(real["mean_pearson"])])
    return Sheet(f"Simulation and robot, {len(real['policies'])} policies", header, rows)


def verdicts(content: Mapping[str, Any]) -> list[str]:
    """What the sequential tests decided, and what to keep in mind of the agreement with a robot."""
    said = [_sequential(comparison) for comparison in content["comparisons"]]
    if real := content["real"]:
        count, smallest = len(real["policies"]), real["smallest_p"]
        said.append(f"{count} policies: by chance alone a perfect order has a probability of {smallest:.3g}")
        said += [f"not among the real results: {', '.join(real['left_out'])}"] if real["left_out"] else []
    return said


def _sequential(comparison: Mapping[str, Any]) -> str:
    test = comparison["overall"]["sequential"]
    names = f"{comparison['run']} and {comparison['baseline']}"
    if test["stopped_at"] is None:
        return f"sequential: e-value {test['e_value']:.3g} after {test['starts']} starts do not tell {names} apart"
    return (
        f"sequential: {names} differ; this was decided after {test['stopped_at']} of {test['starts']} starts "
        f"(e-value now {test['e_value']:.3g})"
    )


def _difference_row(name: str, figures: Mapping[str, Any]) -> list[str]:
    discordant = figures["discordant"]
    return [
        name,
        _count(figures),
        f"{100 * figures['difference']:+.1f}",
        _percent(figures["ci95"]),
        f"{discordant['run_only']} / {discordant['baseline_only']}",
        _p_value(figures["p_value"]),
        _p_value(figures["p_holm"]),
        _verdict(figures),
    ]


def _count(figures: Mapping[str, Any]) -> str:
    """Number of episodes, and of the starts they share."""
    n, starts = figures["n"], figures["starts"]
    return str(n) if n == starts else f"{n} ({starts} starts)"


def _short(value: object) -> str:
    """The value, a hash cut to what tells it apart."""
    text = "-" if value is None else str(value)
    return text[:12] if len(text) >= 40 and all(letter in "0123456789abcdef" for letter in text) else text


def _verdict(figures: Mapping[str, Any]) -> str:
    """Whether the run is worse by less than the margin; it is unclear while the interval holds the margin."""
    tested = figures["non_inferiority"]
    if tested["non_inferior"]:
        return "yes"
    return "no" if figures["ci95"][1] < -tested["margin"] else "unclear"


def _rich(sheet: Sheet) -> Table:
    table = Table(title=Text(sheet.title))
    for number, name in enumerate(sheet.header):
        table.add_column(Text(name), justify="left" if number < sheet.left else "right", overflow="fold")
    for row in sheet.rows:
        cells = [Text(cell) for cell in row]  # in a string [1, 2] would be markup
        table.add_row(*cells, style="bold" if row[0] == MEAN else None)
    return table


def _percent(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
