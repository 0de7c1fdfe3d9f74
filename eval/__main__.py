"""`cadence-eval`: scores a policy on tasks and writes episodes, results, videos and a report."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.evaluate()

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from cadence_configs.command import DONE, FAILED, command
from envs.errors import EnvError
from eval.planning import check_pairs, plan
from eval.results import RunFolder, write_atomically
from eval.rollout import Episode
from eval.served import ServerError
from eval.settings import Settings
from eval.several import evaluate_all, runs_of
from eval.spread import WorkerLost
from vla.api import InputError

if TYPE_CHECKING:
    from eval.baseline import Baseline

ASKED, SOFTWARE, IMAGES = "asked", "software", "images"  # notes in run.json


@command("eval", usage_errors=(InputError, EnvError))
def main(config: DictConfig) -> int:
    """Evaluate; exit status 1 if an episode asked for ended in an error or a timeout."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    runs, console = runs_of(values), Console()
    try:
        if len(runs) == 1:
            return evaluate(next(iter(runs.values())), console)
        for each in runs.values():  # before the first of them takes its hours
            check_pairs(prepare(each)[0])
        return evaluate_all(runs, evaluate, Path(values["out"]), sys.argv, console)
    except (ServerError, WorkerLost, OSError) as error:  # OSError: results cannot be stored, on a full disk for example
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def prepare(settings: Settings) -> tuple[list[Episode], "Baseline | None"]:
    """What is to be run, and what it is to be compared with.

    Raises:
        InputError: if it cannot be run, or not be compared with that.
    """
    from eval.baseline import Baseline
    from eval.worlds import grid_size, suite, task_names

    episodes = plan(settings, task_names(), grid_size, suite)
    return episodes, Baseline.read(settings.baseline, settings, episodes) if settings.baseline else None


def evaluate(settings: Settings, console: Console) -> int:
    """Run what is missing, then write and print results; returns the exit status."""
    from eval.evaluate import pending
    from eval.machine import software
    from eval.observers import progress
    from eval.team import begin_with_any, open_team

    episodes, baseline = prepare(settings)
    signed = {**settings.identity(), "tasks": sorted({episode.task for episode in episodes})}
    with RunFolder(Path(settings.out)) as folder:
        folder.claim(signed)
        todo, asked = pending(episodes, folder.records), settings.asked()
        console.print(f"{len(todo)} of {len(episodes)} episodes to run, results in {folder.path}", markup=False)
        if todo or folder.notes.get(ASKED) != asked:  # else all was done, by the same policy: nothing needs to start
            first = todo or episodes
            with open_team(settings, first[0]) as team:
                say = partial(console.print, markup=False, soft_wrap=True)
                entered = begin_with_any(team, first, say)
                used = goes_on_with(folder, software(entered.renderer) if todo else None, say)
                notes = {ASKED: asked, SOFTWARE: used, IMAGES: settings.images}
                folder.sign({**signed, **entered.identity}, notes)
                if todo:
                    with progress(console, len(todo)) as watch:
                        team.run(todo, folder, watch)
        folder.mend()
        report(folder, console, baseline)
        return FAILED if pending(episodes, folder.records) else DONE


def goes_on_with(
    folder: RunFolder, software: dict[str, Any] | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The software that ran this folder's episodes, in order; says so if what runs the next ones is another.

    Args:
        software: what runs the next ones; None: there are none.
        say: hears of a change.
    """
    from eval.machine import changes

    before = folder.notes.get(SOFTWARE, [{}]) if folder.records else []
    if software is None or before[-1:] == [software]:
        return before
    if before:
        say(f"this run was begun with other software, results will say so: {'; '.join(changes([*before, software]))}")
    return [*before, software]


def report(folder: RunFolder, console: Console, baseline: "Baseline | None" = None) -> None:
    """Write `results.json`, `.md` and `report.html` from the stored episodes and print the tables."""
    from eval.compare.report import paired_markdown, paired_tables
    from eval.machine import changes, describe
    from eval.markdown import results_markdown
    from eval.report import write_report  # statsmodels and matplotlib take seconds to import: after the episodes
    from eval.scoring import scored
    from eval.summary import latency_table, success_table

    used = folder.notes.get(SOFTWARE, [])
    newest = used[-1] if used else {}
    meta = {**describe(sys.argv, newest.get("gl_renderer", "")), **newest, IMAGES: folder.notes.get(IMAGES, "")}
    meta |= {"mixed": changes(used)}
    records = list(folder.records.values())
    content = scored(records, folder.signed["starts"], meta, folder.retried)
    write_atomically(folder.results, json.dumps(content, indent=2) + "\n")
    if baseline is not None:  # afterwards, so that nothing that is wrong with a comparison costs the run its results
        content["paired"] = baseline.paired(folder, content)
        write_atomically(folder.results, json.dumps(content, indent=2) + "\n")
    write_atomically(folder.path / "results.md", results_markdown(content) + paired_markdown(content))
    page = write_report(folder.path, content, records)
    for table in (success_table(content), *paired_tables(content), latency_table(content["tasks"])):
        console.print(table)
    console.print(f"report: {page}", markup=False, soft_wrap=True)
