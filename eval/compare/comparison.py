"""Runs on the same starts -> every figure of `compare.json`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.compare.runs import Run
from eval.overlap import Start, distinct
from eval.paired import (
    RESAMPLES,
    Pairs,
    difference_interval,
    holm,
    mcnemar_exact,
    non_inferiority,
    shares_by_start,
    suite_interval,
)
from eval.sequential import sequential_test
from eval.statistics import Interval, hull, macro_interval, mean_interval
from eval.summary import MEASURES, rate

ALPHA = 0.05
METHODS = {
    "rates": "95% interval: Wilson, after the Rao-Scott design effect where starts were run in several variants",
    "average": "macro average: the mean over tasks, each counted once; tasks whose starts are all other tasks' too are "
    "not part of it, nor of the test of all starts together",
    "average interval": "holds both a stratified paired bootstrap (ci95_bootstrap: starts drawn again within their "
    f"task, {RESAMPLES} times, percentiles) and one that keeps its width where nothing varied (ci95_score: of rates "
    "Wilson at the number of episodes that the mean is worth, of differences made of the tasks' intervals, MOVER)",
    "difference": "run minus baseline on the same starts, 95% interval: Tango's score interval",
    "p": "exact McNemar, two-sided, one count for each start; overall: all starts together, against no difference on "
    "any task",
    "Holm": "p-values that may all be held against 0.05: tasks of all runs together, averages of all runs together",
    "non-inferior": "the lower end of the interval lies above minus the margin (one-sided, 97.5%)",
    "sequential": "for each run, e-value of betting on starts that one policy alone solved, in the order of episode "
    f"numbers; at {1 / ALPHA:.0f} one may stop, however often one looked (error at most 5%)",
}


CONVENTIONS = {
    "last step": "success at the last step (SIMPLER)",
    "any step": "success at any step",
    "strict": "strict success at the last step",
}


@dataclass(frozen=True)
class Outcomes:
    """What all runs did on the episodes they share, in the order of running.

    Attributes:
        tasks: (episodes,) (task, setting) of each.
        starts: (episodes,) number of the start, ascending; tasks that have a start in common have its number in common.
        success: (runs, episodes)
        averaged: (task, setting) of the tasks that averages and tests of all starts count, sorted: without those whose
            starts are all other tasks' too.
    """

    tasks: list[tuple[str, str]]
    starts: NDArray[np.intp]
    success: NDArray[np.bool_]
    averaged: list[tuple[str, str]]

    def of(self, task: tuple[str, str]) -> NDArray[np.bool_]:
        """(episodes,) which are of the task."""
        return np.array([each == task for each in self.tasks])

    def pairs(self, run: int, mask: NDArray[np.bool_]) -> Pairs:
        """Some of the episodes, of the first run and another."""
        return Pairs(self.success[0, mask], self.success[run, mask], self.starts[mask])

    def shares(self, values: NDArray[Any]) -> list[NDArray[np.float64]]:
        """For each averaged task (starts,) numbers whose mean is the task's mean of `values`, one per episode."""
        chosen = [self.of(task) for task in self.averaged]
        return [shares_by_start(values[mask], self.starts[mask]) for mask in chosen]


def compare(runs: Sequence[Run], measure: str, margin: float) -> dict[str, Any]:
    """Compare each run with the first.

    Args:
        runs: finished, on the same starts, see `eval.compare.runs.check_starts`.
        measure: a key of `eval.summary.MEASURES`.
        margin: of non-inferiority, a success rate.

    Raises:
        InputError: if a task has a single start.
    """
    outcomes = gather(runs, measure)
    comparisons = [compared(runs, number, outcomes, margin) for number in range(1, len(runs))]
    _correct([task for comparison in comparisons for task in comparison["tasks"]])
    _correct([comparison["overall"] for comparison in comparisons])
    return {
        "convention": CONVENTIONS[measure],
        "methods": METHODS,
        "margin": margin,
        "runs": [_run(run, success, outcomes, measure) for run, success in zip(runs, outcomes.success, strict=True)],
        "comparisons": comparisons,
    }


def gather(runs: Sequence[Run], measure: str) -> Outcomes:
    """Line the runs' episodes up."""
    keys, same = list(runs[0].averaged), runs[0].same_starts
    each = [same.get(start, start) for start in (Start(*key[:2], key.episode_id) for key in keys)]
    numbers = {start: number for number, start in enumerate(dict.fromkeys(each))}
    by_task: dict[tuple[str, str], set[Start]] = {}
    for key, start in zip(keys, each, strict=True):
        by_task.setdefault(key[:2], set()).add(start)
    return Outcomes(
        tasks=[key[:2] for key in keys],
        starts=np.array([numbers[start] for start in each], dtype=np.intp),
        success=np.array([[bool(MEASURES[measure](run.records[key])) for key in keys] for run in runs]),
        averaged=distinct(by_task),
    )


def _run(run: Run, success: NDArray[np.bool_], outcomes: Outcomes, measure: str) -> dict[str, Any]:
    averaged = list(run.averaged.values())
    tasks = [
        {
            "task": task,
            "setting": setting,
            **rate([record for record in averaged if record.key[:2] == (task, setting)], measure),
        }
        for task, setting in run.tasks
    ]
    counted = [task for task in tasks if (task["task"], task["setting"]) in outcomes.averaged]
    rates, worth, n = ([task[name] for task in counted] for name in ("success_rate", "n_effective", "n"))
    return {
        "name": run.name,
        "path": str(run.path),
        "identity": dict(run.identity),
        "tasks": tasks,
        "mean": {
            "tasks": len(counted),
            "n": sum(n),
            "success_rate": float(np.mean(rates)),
            **_intervals(suite_interval(outcomes.shares(success)), macro_interval(rates, worth)),
        },
    }


def compared(runs: Sequence[Run], number: int, outcomes: Outcomes, margin: float) -> dict[str, Any]:
    baseline, run = outcomes.success[0], outcomes.success[number]
    tasks = []
    for name in runs[0].tasks:
        pairs = outcomes.pairs(number, outcomes.of(name))
        tasks.append({"task": name[0], "setting": name[1], **_figures(pairs), **_score_figures(pairs, margin)})
    counted = [task for task in tasks if (task["task"], task["setting"]) in outcomes.averaged]
    differences = [task["difference"] for task in counted]
    together = outcomes.pairs(number, np.array([each in outcomes.averaged for each in outcomes.tasks]))
    bootstrap = suite_interval(outcomes.shares(run.astype(np.int64) - baseline))
    score = mean_interval(differences, [task["ci95"] for task in counted])
    low = hull(bootstrap, score).low
    overall = {
        **_figures(together),
        "difference": float(np.mean(differences)),
        **_intervals(bootstrap, score),
        "non_inferiority": {"margin": margin, "low": low, "non_inferior": low > -margin},
    }
    return {"baseline": runs[0].name, "run": runs[number].name, "tasks": tasks, "overall": overall}


def _intervals(bootstrap: Interval, score: Interval) -> dict[str, list[float]]:
    """The interval of an average, and the two that it holds: a bootstrap has no width where nothing varied."""
    return {"ci95": list(hull(bootstrap, score)), "ci95_bootstrap": list(bootstrap), "ci95_score": list(score)}


def _figures(pairs: Pairs) -> dict[str, Any]:
    signs = pairs.signs
    return {
        "n": pairs.n,
        "starts": len(signs),
        "discordant": {"run_only": pairs.gained, "baseline_only": pairs.lost},
        "starts_won": int(np.sum(signs > 0)),
        "starts_lost": int(np.sum(signs < 0)),
        "p_value": mcnemar_exact(signs),
        "sequential": asdict(sequential_test(signs, ALPHA)),
    }


def _score_figures(pairs: Pairs, margin: float) -> dict[str, Any]:
    return {
        "difference": pairs.difference,
        "ci95": list(difference_interval(pairs)),
        "non_inferiority": non_inferiority(pairs, margin)._asdict(),
    }


def _correct(figures: Sequence[dict[str, Any]]) -> None:
    """Add p_holm to figures that are one family of tests."""
    for each, adjusted in zip(figures, holm([figure["p_value"] for figure in figures]), strict=True):
        each["p_holm"] = adjusted
