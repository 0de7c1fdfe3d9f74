"""Episodes an hour against worker processes, and recipes; every set-up in turns, as ratios to the first of its round.

python benchmarks/evaluation.py --policy hold --workers 1 2
python benchmarks/evaluation.py --policy served --workers 1 2 --accel none fast --threads 1

The first set-up is the baseline: the first number of workers with the first recipe. Starting up is not counted; the
time is that from a running world and a warm policy to the last stored episode.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "1")  # one core a process, with one worker as with several
sys.path.pop(0)  # this folder, in which `envs` would be another file

import numpy as np
from omegaconf import OmegaConf

from cadence_configs.command import CONFIGS
from eval.machine import processor
from eval.planning import plan
from eval.results import Record, RunFolder
from eval.settings import Settings
from eval.team import open_team
from eval.worlds import grid_size, suite, task_names


@dataclass(frozen=True)
class SetUp:
    """What is compared."""

    workers: int
    accel: str

    def __str__(self) -> str:
        return f"{self.workers} worker{'s' * (self.workers > 1)}, {self.accel}"


def settings_of(options: argparse.Namespace) -> Settings:
    """The evaluation that every set-up runs its own way."""
    config: Any = OmegaConf.to_container(OmegaConf.load(CONFIGS / "eval.yaml"), resolve=False)
    config = {name: value for name, value in config.items() if name not in ("defaults", "hydra")}
    changes = {"tasks": options.tasks, "policy": options.policy, "threads": options.threads, "video": options.video}
    return Settings.read({**config, **changes, "starts": "random", "model": options.model, "out": "unused"})


def episodes_an_hour(settings: Settings, count: int) -> tuple[float, float]:
    """(episodes an hour, seconds until the first could begin) of one run."""
    with tempfile.TemporaryDirectory(prefix="cadence-") as out:
        chosen = replace(settings, out=out, episodes=settings.workers + count)
        episodes = plan(chosen, task_names(), grid_size, suite)
        began = perf_counter()
        with RunFolder(Path(out)) as folder, open_team(chosen, episodes[0]) as team:
            team.begin(episodes[0])
            started = perf_counter() - began
            team.run(episodes[: settings.workers], folder, refuse_errors)  # worlds, first answers
            began = perf_counter()
            team.run(episodes[settings.workers :], folder, refuse_errors)
            seconds = perf_counter() - began
        return 3600 * (len(episodes) - settings.workers) / seconds, started


def refuse_errors(record: Record) -> None:
    if not record.scored:
        raise SystemExit(f"episode {record.episode_id} broke: {record.error}")


def measure(settings: Settings, set_ups: list[SetUp], options: argparse.Namespace) -> dict[SetUp, list[float]]:
    """Episodes an hour of each set-up in each round, in turns: A B, B A, A B, ..."""
    rates: dict[SetUp, list[float]] = {set_up: [] for set_up in set_ups}
    for number in range(options.rounds):
        for set_up in set_ups if number % 2 == 0 else set_ups[::-1]:
            chosen = replace(settings, workers=set_up.workers, accel=set_up.accel)
            rate, started = episodes_an_hour(chosen, options.episodes)
            print(f"round {number + 1}: {set_up}: {rate:.0f} episodes/h, started in {started:.1f} s", flush=True)
            rates[set_up].append(rate)
    return rates


def report(rates: dict[SetUp, list[float]]) -> list[dict[str, Any]]:
    """Print and return medians with the lowest and highest round."""
    baseline = np.array(next(iter(rates.values())))
    rows = []
    for set_up, values in rates.items():
        ratios = np.array(values) / baseline
        rate, ratio = ([float(np.median(each)), float(np.min(each)), float(np.max(each))] for each in (values, ratios))
        print(
            f"{set_up!s:>24} {rate[0]:7.0f} episodes/h [{rate[1]:.0f}, {rate[2]:.0f}]   "
            f"{ratio[0]:.2f}x [{ratio[1]:.2f}, {ratio[2]:.2f}]"
        )
        rows.append({"workers": set_up.workers, "accel": set_up.accel, "episodes_an_hour": rate, "ratio": ratio})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="served", choices=("served", "local", "expert", "random", "hold"))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--tasks", nargs="+", default=["widowx_spoon_on_towel"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--accel", nargs="+", default=["none"])
    parser.add_argument("--episodes", type=int, default=16, help="of each task, timed, in every round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the model; as cadence-eval chooses if not given")
    parser.add_argument("--video", action="store_true", help="film every episode, as cadence-eval does")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    set_ups = [SetUp(workers, accel) for accel, workers in product(options.accel, options.workers)]
    rates = measure(settings_of(options), set_ups, options)
    machine = {"processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(f"{options.policy}, {', '.join(options.tasks)}, {options.rounds} rounds of {options.episodes}; {machine}")
    rows = report(rates)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine, "options": vars(options), "rows": rows}, default=str))


if __name__ == "__main__":
    main()
