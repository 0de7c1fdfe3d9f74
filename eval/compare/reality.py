"""How well the runs' rates agree with a real robot's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.real_results import Trials
from eval.simpler_metrics import CONVENTION, mean_maximum_rank_violation, pearson_correlation
from eval.statistics import wilson
from vla.api import InputError


def agreement(runs: Sequence[Mapping[str, Any]], trials: Mapping[tuple[str, str], Trials]) -> dict[str, Any]:
    """MMRV and Pearson's r of each task that was run on the robot too, with both rates of every policy.

    Args:
        runs: the `runs` of `compare.json`; their names are the policies' names.
        trials: see `eval.real_results.load`.

    Raises:
        InputError: if a run's policy or all tasks are missing among the real results.
    """
    policies = [run["name"] for run in runs]
    known = list(dict.fromkeys(policy for policy, _ in trials))
    if strangers := [policy for policy in policies if policy not in known]:
        raise InputError(f"no real results of {', '.join(strangers)}, only of {', '.join(known)}; use names=[...]")
    simulated = [task["task"] for task in runs[0]["tasks"]]
    measured = list(dict.fromkeys(task for _, task in trials))
    common = [task for task in simulated if task in measured]
    if not common:
        raise InputError(f"the runs have the tasks {', '.join(simulated)}, the real results {', '.join(measured)}")
    tasks = [_task(task, runs, trials) for task in common]
    correlations = [task["pearson"] for task in tasks if task["pearson"] is not None]
    return {
        "convention": CONVENTION,
        "policies": policies,
        "tasks": tasks,
        "mean_mmrv": float(np.mean([task["mmrv"] for task in tasks])),
        "mean_pearson": float(np.mean(correlations)) if correlations else None,
        "smallest_p": 1 / math.factorial(len(policies)),
        "left_out": [task for task in simulated if task not in measured],
    }


def _task(task: str, runs: Sequence[Mapping[str, Any]], trials: Mapping[tuple[str, str], Trials]) -> dict[str, Any]:
    policies = []
    for run in runs:
        if (run["name"], task) not in trials:
            raise InputError(f"no real results of {run['name']} on {task}; every policy needs them")
        real = trials[run["name"], task]
        simulated = next(each for each in run["tasks"] if each["task"] == task)
        policies.append(
            {
                "policy": run["name"],
                "sim": {name: simulated[name] for name in ("n", "successes", "success_rate", "ci95")},
                "real": {
                    "n": real.trials,
                    "successes": real.successes,
                    "success_rate": real.rate,
                    "ci95": list(wilson(real.successes, real.trials)),
                },
            }
        )
    rates = {side: [policy[side]["success_rate"] for policy in policies] for side in ("sim", "real")}
    constant = any(len(set(values)) == 1 for values in rates.values())  # then r does not exist
    return {
        "task": task,
        "policies": policies,
        "mmrv": mean_maximum_rank_violation(**rates),
        "pearson": None if constant else pearson_correlation(**rates),
    }
