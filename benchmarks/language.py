"""Does a policy see and read? Success when it is told the truth, something else, in other words, or shown nothing.

    python -m benchmarks.language out=runs/language                           # the shipped policy, all nine tasks
    python -m benchmarks.language out=runs/mine checkpoint=runs/mine/checkpoint episodes=50 workers=2

    official    the task's own scene and instruction, starts from `seed`
    reworded    the same starts, instructions in words of a list that no shipped policy was trained on
    blank       the same starts, every image black
    random      the same starts, uniformly random actions
    mixed       objects of other tasks are present and several instructions are possible; told the task's own
    other       the mixed starts, told another valid instruction: success at what was told (`followed`), and at the task

Episodes are stored as they end; the same command continues an interrupted run. Success is SIMPLER's, at the last step.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from yaml import YAMLError

from benchmarks.asking import Blank, Reworded, ToldOther
from eval.policies import RandomPolicy
from eval.rollout import Episode, rollout
from eval.statistics import wilson
from eval.worlds import make_world, robot_of
from vla.api import InputError, Policy
from vla.checkpoints import native
from vla.chunking import OpenLoop
from vla.policy import PRETRAINED
from vla.training.wordings import Wordings

CONDITIONS = ("official", "reworded", "blank", "random", "mixed", "other")
TASKS = (
    "widowx_spoon_on_towel",
    "widowx_carrot_on_plate",
    "widowx_stack_cube",
    "widowx_put_eggplant_in_basket",
    "google_robot_pick_coke_can",
    "google_robot_move_near",
    "google_robot_open_drawer",
    "google_robot_close_drawer",
    "google_robot_place_apple_in_closed_top_drawer",
)
_WIDE = 130  # columns; without a terminal rich assumes 80, which cuts names
HELD_OUT = Path(__file__).parents[1] / "configs/phrasing/held_out.yaml"


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        out: folder of the results.
        checkpoint: directory of a native checkpoint; None: the shipped `model`.
        episodes: per task and condition.
        seed: of the starts.
        execute: actions taken from each chunk.
        workers: processes.
    """

    out: str
    model: str = "tiny"
    checkpoint: str | None = None
    accel: str = "none"
    tasks: tuple[str, ...] = TASKS
    conditions: tuple[str, ...] = CONDITIONS
    episodes: int = 20
    seed: int = 1
    execute: int = 2
    workers: int = 1
    wordings: str = str(HELD_OUT)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.conditions) - set(CONDITIONS)):
            raise InputError(f"unknown conditions {unknown}; allowed: {', '.join(CONDITIONS)}")
        if unknown := sorted(set(self.tasks) - set(TASKS)):
            raise InputError(f"unknown tasks {unknown}; allowed: {', '.join(TASKS)}")
        for name in ("episodes", "execute", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def policy(self) -> dict[str, Any]:
        """What decides an outcome, besides condition, task and number."""
        weights = native.weights_hash(Path(self.checkpoint) if self.checkpoint else PRETRAINED / self.model)
        words = hashlib.sha256(Path(self.wordings).read_bytes()).hexdigest()[:12]
        return {"weights": weights, "words": words, "accel": self.accel, "seed": self.seed, "execute": self.execute}


@dataclass(frozen=True)
class Job:
    """One episode of one condition."""

    condition: str
    task: str
    number: int


@dataclass(frozen=True)
class Outcome:
    """One line of the results: `success` at the task, `followed` at what was told."""

    condition: str
    task: str
    number: int
    instruction: str
    success: bool
    followed: bool

    @property
    def job(self) -> Job:
        return Job(self.condition, self.task, self.number)


def jobs(options: Options, done: Iterable[Job]) -> list[Job]:
    """What is missing, episodes of one world together."""
    stored = set(done)
    every = [
        Job(condition, task, number)
        for task in options.tasks
        for condition in options.conditions
        for number in range(options.episodes)
    ]
    return [job for job in every if job not in stored]


def play(options: Options, job: Job) -> Outcome:
    """Run one episode."""
    scene = "mixed" if job.condition in ("mixed", "other") else "official"
    episode = Episode(job.task, job.number, starts="random", run_seed=options.seed, scene=scene)
    policy = _policy(options, robot_of(job.task))
    world = _world(options, job.task, job.condition)
    chosen = RandomPolicy(world.unwrapped) if job.condition == "random" else policy
    execute = 1 if job.condition == "random" else options.execute
    seen = rollout(world, chosen, episode, OpenLoop(execute))
    followed = seen.success[-1]
    success = world.solved if isinstance(world, ToldOther) else followed
    return Outcome(job.condition, job.task, job.number, seen.instruction, success, followed)


@lru_cache(maxsize=2)
def _policy(options: Options, robot: str) -> Policy:
    from vla.policy import load_policy

    return load_policy(options.model, options.checkpoint, options.accel, "cpu", "float32", "trained", robot=robot)


_worlds: dict[tuple[str, str], Any] = {}  # of this process, at most one


def _close_worlds() -> None:
    while _worlds:
        _worlds.popitem()[1].close()


def _world(options: Options, task: str, condition: str) -> Any:
    """The world of a condition; only the newest is kept."""
    if (task, condition) not in _worlds:
        _close_worlds()
        scene = "mixed" if condition in ("mixed", "other") else "official"
        cameras = _policy(options, robot_of(task)).spec.cameras
        world = make_world(Episode(task, 0, starts="random", scene=scene), cameras, False)
        wrapped = {
            "blank": Blank,
            "reworded": lambda plain: Reworded(plain, Wordings.read(Path(options.wordings))),
            "other": ToldOther,
        }
        _worlds[task, condition] = wrapped.get(condition, lambda plain: plain)(world)
    return _worlds[task, condition]


def _begin() -> None:
    import torch

    torch.set_num_threads(1)
    Finalize(None, _close_worlds, exitpriority=10)  # a worker runs no atexit functions


def outcomes(options: Options, todo: list[Job]) -> Iterator[Outcome]:
    """Results in the order of the jobs."""
    if not todo:
        return
    with ProcessPoolExecutor(options.workers, get_context("spawn"), _begin) as pool:
        yield from pool.map(partial(play, options), todo, chunksize=max(1, min(10, options.episodes // 2)))


def rates(results: Iterable[Outcome]) -> dict[str, dict[str, list[bool]]]:
    """Column -> task -> outcomes; `other` gives two columns."""
    table: dict[str, dict[str, list[bool]]] = {}
    for each in results:
        columns = {each.condition: each.success}
        if each.condition == "other":
            columns = {"other, followed": each.followed, "other, own task": each.success}
        for column, value in columns.items():
            table.setdefault(column, {}).setdefault(each.task, []).append(value)
    return table


def summary(table: Mapping[str, Mapping[str, list[bool]]]) -> dict[str, Any]:
    """Rates with 95% Wilson intervals per task and over all episodes; `mean` weighs tasks equally."""
    found: dict[str, Any] = {}
    for column, tasks in table.items():
        cells = {task: _rate(values) for task, values in tasks.items()}
        pooled = [value for values in tasks.values() for value in values]
        mean = float(np.mean([cell["rate"] for cell in cells.values()]))
        found[column] = {"tasks": cells, "mean": mean, "all": _rate(pooled)}
    return found


def _rate(values: list[bool]) -> dict[str, Any]:
    low, high = wilson(sum(values), len(values))
    return {"rate": sum(values) / len(values), "n": len(values), "ci95": [low, high]}


def show(found: Mapping[str, Any], options: Options) -> None:
    """Print rates in percent; intervals are of all episodes together."""
    table = Table("", *found, title=f"success [%], n = {options.episodes} a cell")
    for task in options.tasks:
        rates_here = (found[column]["tasks"].get(task) for column in found)
        table.add_row(task, *("" if rate is None else f"{100 * rate['rate']:.0f}" for rate in rates_here))
    table.add_row("mean", *(f"{100 * found[column]['mean']:.1f}" for column in found))
    intervals = ([round(100 * end) for end in found[column]["all"]["ci95"]] for column in found)
    table.add_row("95% Wilson", *(f"{low} to {high}" for low, high in intervals))
    Console(width=_WIDE).print(table)


def main() -> int:
    """Run what is missing, store every episode, print and write the rates."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\nkey=value, of {', '.join(Options.__annotations__)}; lists in brackets")
        return 0
    try:
        options = _options()
        for robot in sorted({robot_of(task) for task in options.tasks}):
            _policy(options, robot)  # what is wrong with it is said here, not by every process
        out = Path(options.out)
        out.mkdir(parents=True, exist_ok=True)
        results = begin(out, options)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    asked = set(jobs(options, ()))
    with (out / "language.jsonl").open("a") as file:
        for each in outcomes(options, jobs(options, (each.job for each in results))):
            results.append(each)
            file.write(json.dumps(asdict(each)) + "\n")
            file.flush()
    found = summary(rates(each for each in results if each.job in asked))
    (out / "language.json").write_text(json.dumps(found, indent=2) + "\n")
    show(found, options)
    return 0


def _options() -> Options:
    """Those of the command line.

    Raises:
        InputError: on an option that does not exist, is missing, or has a wrong value.
    """
    try:
        given: Any = OmegaConf.to_container(OmegaConf.from_cli())
    except YAMLError as error:
        raise InputError(f"the options cannot be read: {error}") from error
    if unknown := sorted(given.keys() - Options.__annotations__.keys()):
        raise InputError(f"unknown options {unknown}; allowed: {', '.join(Options.__annotations__)}")
    if "out" not in given:
        raise InputError("out=<folder of the results> is missing")
    for name in {"tasks", "conditions"} & given.keys():
        given[name] = (given[name],) if isinstance(given[name], str) else tuple(given[name])
    return Options(**given)


def begin(out: Path, options: Options) -> list[Outcome]:
    """Results so far, if they are of the same policy; what a kill left of a last line is cut off."""
    signature, path = out / "run.json", out / "language.jsonl"
    if signature.exists() and json.loads(signature.read_text()) != options.policy:
        raise InputError(f"{out} holds results of {signature.read_text()}; choose another out=")
    signature.write_text(json.dumps(options.policy))
    lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    path.write_text("".join(line + "\n" for line in lines))
    return [Outcome(**json.loads(line)) for line in lines]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
