"""Tables to paste into a paper: GitHub Markdown, every figure with its n, its interval and its convention."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.summary import text_of


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are text and the others figures, aligned to the right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(_line(cells) for cells in (header, rule, *rows)) + "\n"


def results_markdown(results: Mapping[str, Any]) -> str:
    """The content of `results.json` as the table of one run.

    Args:
        results: see `eval.summary.results`.
    """
    tasks, mean = results["tasks"], results["mean_success"]
    header = ("Task", "Setting", "n", "Success (last step) [95% CI]", "Any step", "Strict", "Errors")
    rows = [_task_row(task) for task in tasks]
    if len(tasks) > 1 and mean is not None:
        low, high = results["mean_ci95"]
        scored = sum(task["n"] for task in tasks)
        share = f"{mean:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
        errors = sum(task["errors"] for task in tasks)
        rows.append(["**mean over tasks**", "", str(scored), f"**{share}**", "", "", str(errors)])
    notes = [*dict.fromkeys(task["convention"] for task in tasks), results["average"]]
    notes += [
        f"{task['task']}: {', '.join(task['not_averaged'])} not averaged" for task in tasks if task["not_averaged"]
    ]
    made = f"Cadence {results['meta']['version']}: `{results['meta']['command']}`"
    return table(header, rows, left=2) + "\n" + "\n".join(f"- {note}" for note in (*notes, made)) + "\n"


def _task_row(task: Mapping[str, Any]) -> list[str]:
    measures = [text_of(task[measure]) for measure in ("any_step", "strict")]
    return [task["task"], task["setting"], str(task["n"]), text_of(task), *measures, str(task["errors"])]


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", r"\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
