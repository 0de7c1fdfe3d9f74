"""`cadence-collect`: the scripted expert's demonstrations as a LeRobotDataset directory."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.collect()

import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import envs
from cadence_configs.command import DONE, FAILED, command
from envs.collection import MakeWorld, Request, collect, make_world
from envs.demonstrations import Noise
from envs.errors import EnvError, UnknownNameError
from envs.shards import Shard
from envs.tasks import find, names

GROUPS = ("all", "widowx", "google_robot", "conveyor")


@command("collect", usage_errors=(EnvError,))
def main(config: DictConfig) -> int:
    """Collect, show progress, report what was kept and how fast."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    out, workers = directory(options.pop("out")), options.pop("workers")
    return run(read_request(options), out, workers)


def run(request: Request, out: Path, workers: int, make: MakeWorld = make_world) -> int:
    """Collect with progress on the console; the exit status."""
    console = Console()
    try:
        _collect(request, out, workers, console, make)
    except BrokenProcessPool:
        console.print("error: a worker process died (out of memory?); run the same command again to continue")
        return FAILED
    return DONE


def read_request(options: dict[str, Any]) -> Request:
    """What to collect, from the command's options without `out` and `workers`.

    Raises:
        EnvError: naming the option at fault.
    """
    tasks, variants = resolve_tasks(options["tasks"]), read_variants(options["variants"])
    _check_one_robot(tasks)
    return Request(**{**options, "tasks": tasks, "variants": variants, "noise": read_noise(options["noise"])})


def directory(out: object) -> Path:
    """The dataset's directory.

    Raises:
        EnvError: if it is not a path.
    """
    if not isinstance(out, str) or not out:
        raise EnvError(f"out must be a directory, got {out!r}")
    return Path(out)


def read_noise(values: object) -> Noise:
    """The noise from its group of keys.

    Raises:
        EnvError: naming what is missing or unknown.
    """
    allowed = [item.name for item in fields(Noise)]
    if not isinstance(values, dict) or set(values) != set(allowed):
        got = sorted(map(str, values)) if isinstance(values, dict) else repr(values)
        raise EnvError(f"noise must have exactly the keys {', '.join(allowed)}; got {got}")
    return Noise(**values)


def read_variants(values: object) -> tuple[str, ...] | None:
    """Names of variants, None for those that SIMPLER runs.

    Raises:
        EnvError: if it is neither.
    """
    if values is None:
        return None
    names = [values] if isinstance(values, str) else values
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EnvError(f"variants must be names or null, got {values!r}")
    return tuple(names)


def resolve_tasks(tasks: str | list[str]) -> tuple[str, ...]:
    """Task names from a name, a list of names, or a group.

    Raises:
        UnknownNameError: for a name that is neither a task nor a group with tasks.
        EnvError: for what is no name at all.
    """
    if not isinstance(tasks, (str, list)) or not all(isinstance(name, str) for name in tasks):
        raise EnvError(f"tasks must be a task name or a list of them, got {tasks!r}")
    wanted = [tasks] if isinstance(tasks, str) else tasks
    found: list[str] = []
    for name in wanted:
        covered = envs.SIMPLER if name == "all" else [task for task in names() if task.startswith(f"{name}_")]
        members = covered if name in GROUPS else []
        if not members and name not in names():
            raise UnknownNameError("task", name, [*names(), *GROUPS])
        found += members or [find(name).name]
    return tuple(dict.fromkeys(found))


def _check_one_robot(tasks: tuple[str, ...]) -> None:
    """A dataset has the cameras, states and actions of one robot."""
    of_robots: dict[str, list[str]] = {}
    for name in tasks:
        of_robots.setdefault(find(name).robot.name, []).append(name)
    if len(of_robots) > 1:
        listed = "; ".join(f"{robot}: {', '.join(names)}" for robot, names in of_robots.items())
        raise EnvError(f"a dataset is of one robot, got tasks of {len(of_robots)}: {listed}; collect them separately")


def _collect(request: Request, out: Path, workers: int, console: Console, make: MakeWorld) -> None:
    started, frames = time.monotonic(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bars = {task: progress.add_task(task, total=request.episodes) for task in request.tasks}

        def on_shard(shard: Shard, fresh: bool) -> None:
            nonlocal frames
            frames += shard.frames if fresh else 0
            progress.advance(bars[shard.task], len(shard.episodes))

        summary = collect(request, out, workers, on_shard, make)
    minutes = (time.monotonic() - started) / 60
    console.print(f"{out}: {summary['episodes']} episodes, {summary['frames']} frames")
    console.print(f"{frames} frames simulated now, {frames / minutes:.0f} frames/min with {workers} worker(s)")
    for task, tried in summary["tried"].items():
        kept = summary["kept"][task]
        console.print(f"{task}: {kept} of {tried} attempts kept, {1 - kept / tried:.1%} rejected")
