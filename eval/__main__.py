"""`cadence-eval`: scores a policy on tasks and writes episodes, results, videos and a report."""

import importlib
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from cadence_configs.command import DONE, FAILED, command
from envs.errors import EnvError
from eval.results import RunFolder, write_atomically
from eval.served import ServerError
from eval.settings import Settings, plan
from vla.api import InputError

ASKED, RENDERER, IMAGES = "asked", "gl_renderer", "images"  # notes in run.json


@command("eval", usage_errors=(InputError, EnvError))
def main(config: DictConfig) -> int:
    """Evaluate; exit status 1 if an episode asked for ended in an error or a timeout."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    settings = Settings.read(values)
    console = Console()
    try:
        return evaluate(settings, console)
    except (ServerError, OSError) as error:  # OSError: results cannot be stored, on a full disk for example
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def evaluate(settings: Settings, console: Console) -> int:
    """Run what is missing, then write and print results; returns the exit status."""
    from eval.evaluate import VIDEOS, Evaluation, identity, pending
    from eval.observers import progress
    from eval.sources import open_source
    from eval.worlds import grid_size, make_world, suite, task_names

    episodes = plan(settings, task_names(), grid_size, suite)
    build = partial(make_world, overlay=settings.overlay, robot_assets=settings.robot_assets)
    with RunFolder(Path(settings.out)) as folder:
        folder.claim(settings.identity())
        todo, asked = pending(episodes, folder.records), settings.asked()
        console.print(f"{len(todo)} of {len(episodes)} episodes to run, results in {folder.path}", markup=False)
        if todo or folder.notes.get(ASKED) != asked:  # else all was done, by the same policy: nothing needs to start
            with open_source(settings, (todo or episodes)[0].task) as source:
                importlib.import_module("envs.manipulation")  # here, because a server is starting meanwhile
                signed = {**settings.identity(), **identity(source)}
                folder.claim(signed)
                videos = folder.path / VIDEOS if settings.video else None
                with Evaluation(source, build, settings.rows, videos) as evaluation:
                    evaluation.enter((todo or episodes)[0])
                    folder.sign(signed, {ASKED: asked, RENDERER: evaluation.renderer, IMAGES: settings.images})
                    if todo:
                        with progress(console, len(todo)) as watch:
                            evaluation.run(todo, folder, watch)
        report(folder, folder.notes, console)
        return FAILED if pending(episodes, folder.records) else DONE


def report(folder: RunFolder, notes: Mapping[str, Any], console: Console) -> None:
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
    write_atomically(folder.path / "results.md", results_markdown(content))
    page = write_report(folder.path, content, records)
    console.print(success_table(content["tasks"]))
    console.print(latency_table(content["tasks"]))
    console.print(f"report: {page}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
