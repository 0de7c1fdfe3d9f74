"""One evaluation under several recipes: the same starts for each, then what differs from the first."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.results import write_atomically
from eval.settings import Settings
from vla import recipe as recipes
from vla.api import InputError

MEASURE = "last step"


def runs_of(values: Mapping[str, Any]) -> dict[str, Settings]:
    """What is to be run, by the recipe's name; several runs lie in folders of that name in `out`.

    Args:
        values: of the configuration file and the command line; `accel` is one recipe or a list of them.

    Raises:
        InputError: on a recipe that is named twice or does not exist, before anything is run.
    """
    accel = values["accel"]
    if not isinstance(accel, list) or len(accel) == 1:
        return {"": Settings.read({**values, "accel": accel[0] if isinstance(accel, list) else accel})}
    found: dict[str, Settings] = {}
    for each in accel:
        if not isinstance(each, str) or (each not in recipes.names() and not Path(each).is_file()):
            raise InputError(f"unknown recipe {each!r} in accel; allowed: {', '.join(recipes.names())}, or YAML files")
        name = Path(each).stem if each.endswith(".yaml") else each
        if name in found:
            raise InputError(f"accel names {name} more than once")
        found[name] = Settings.read({**values, "accel": each, "out": str(Path(values["out"]) / name)})
    if not found:
        raise InputError(f"accel is empty; allowed: {', '.join(recipes.names())}")
    if not next(iter(found.values())).has_model:
        raise InputError("several recipes need policy=served or local: there is no other model to run them")
    return found


def evaluate_all(
    found: Mapping[str, Settings],
    evaluate: Callable[[Settings, Console], int],
    out: Path,
    words: Sequence[str],
    console: Console,
) -> int:
    """Run what is missing under each recipe, then compare if nothing is left to run; returns the worst exit status.

    Args:
        found: of `runs_of`, the baseline first.
        evaluate: runs one of them.
        out: folder of all runs and of `compare.json`, `compare.md` and the chart.
        words: the command.
    """
    statuses = []
    for name, settings in found.items():
        console.rule(f"accel={name}")
        statuses.append(evaluate(settings, console))
    if worst := max(statuses):
        console.print("not compared: episodes ended in error or timeout; run again to finish them")
        return worst
    margin = next(iter(found.values())).margin
    _compare({name: Path(settings.out) for name, settings in found.items()}, margin, out, words, console)
    return 0


def _compare(folders: Mapping[str, Path], margin: float, out: Path, words: Sequence[str], console: Console) -> None:
    from eval.compare.chart import draw, save  # matplotlib and scipy: after the episodes, they take seconds
    from eval.compare.comparison import compare
    from eval.compare.report import as_markdown, tables
    from eval.compare.runs import check_starts, notes, read
    from eval.machine import describe

    runs = [read(path, name) for name, path in folders.items()]
    check_starts(runs)
    content = {"meta": describe(list(words), gl_renderer=""), **compare(runs, MEASURE, margin)}
    content |= {"real": None, "notes": notes(runs)}
    write_atomically(out / "compare.json", json.dumps(content, indent=2) + "\n")
    write_atomically(out / "compare.md", as_markdown(content))
    save(draw(content), out / "compare")
    console.print(tables(content))
    console.print(f"comparison: {out / 'compare.md'}", markup=False, soft_wrap=True)
