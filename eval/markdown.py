"""Tables to paste into a paper: GitHub Markdown, every figure with its n, its interval and its convention."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.summary import mean_of, remarks, text_of


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are text and the others figures, aligned to the right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(_line(cells) for cells in (header, rule, *rows)) + "\n"


def results_markdown(results: Mapping[str, Any]) -> str:
    """The content of `results.json` as the table of one run.

    Args:
        results: see `eval.summary.results`.
    """
    tasks, mean = results["tasks"], mean_of(results)
    header = ("Task", "Setting", "n", "Success (last step) [95% CI]", "Any step", "Strict", "Errors")
    rows = [_task_row(task) for task in tasks]
    if mean:
        rows.append([f"**{mean['label']}**", "", str(mean["n"]), f"**{mean['share']}**", "", "", str(mean["errors"])])
    notes = remarks(results)
    made = f"Cadence {results['meta']['version']}: `{results['meta']['command']}`"
    return table(header, rows, left=2) + "\n" + "\n".join(f"- {note}" for note in (*notes, made)) + "\n"


def _task_row(task: Mapping[str, Any]) -> list[str]:
    measures = [text_of(task[measure]) for measure in ("any_step", "strict")]
    return [task["task"], task["setting"], str(task["n"]), text_of(task), *measures, str(task["errors"])]


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("\\", "\\\\").replace("|", r"\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
