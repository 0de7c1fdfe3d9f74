"""`cadence-eval`: scores a policy on tasks and writes episodes, results, videos and a report."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.evaluate()

import json
import sys
from collections.abc import Mapping
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

ASKED, RENDERER, IMAGES = "asked", "gl_renderer", "images"  # notes in run.json


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
                entered = begin_with_any(team, first, lambda loss: console.print(loss, markup=False, soft_wrap=True))
                notes = {ASKED: asked, RENDERER: entered.renderer, IMAGES: settings.images}
                folder.sign({**signed, **entered.identity}, notes)
                if todo:
                    with progress(console, len(todo)) as watch:
                        team.run(todo, folder, watch)
        report(folder, folder.notes, console, baseline)
        return FAILED if pending(episodes, folder.records) else DONE


def report(folder: RunFolder, notes: Mapping[str, Any], console: Console, baseline: "Baseline | None" = None) -> None:
    """Write `results.json` and `report.html` from the stored episodes and print both tables."""
    from eval.machine import describe
    from eval.markdown import results_markdown
    from eval.report import write_report  # statsmodels and matplotlib take seconds to import: after the episodes
    from eval.summary import latency_table, results, success_table
    from eval.worlds import left_out

    records = list(folder.records.values())
    meta = {**describe(sys.argv, notes.get(RENDERER, "")), IMAGES: notes.get(IMAGES, "")}
    content = results(records, meta, left_out({record.variant for record in records}))
    write_atomically(folder.path / "results.json", json.dumps(content, indent=2) + "\n")
    if baseline is not None:  # afterwards, so that nothing that is wrong with a comparison costs the run its results
        content["paired"] = baseline.paired(folder, content)
        write_atomically(folder.path / "results.json", json.dumps(content, indent=2) + "\n")
    write_atomically(folder.path / "results.md", results_markdown(content))
    page = write_report(folder.path, content, records)
    console.print(success_table(content["tasks"]))
    console.print(latency_table(content["tasks"]))
    console.print(f"report: {page}", markup=False, soft_wrap=True)
