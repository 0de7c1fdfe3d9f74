"""Episodes -> numbers: success with intervals and latencies, recomputed from the stored lines alone."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from eval.overlap import Start, as_json, distinct, in_words
from eval.results import Record
from eval.rollout import ROUND_TRIP
from eval.statistics import clopper_pearson, design_effect, macro_interval, percentile, posterior, wilson

CONVENTION = (
    "success at the last step (SIMPLER); ci95: Wilson, where a start that was run in several variants counts for as "
    "many episodes as it is worth (Rao-Scott design effect); errors and timeouts are not counted"
)
AVERAGE = (
    "macro average: the mean of the T tasks' success rates, without tasks whose starts are all other tasks' too; its "
    "interval is Wilson's at the number of episodes that this mean is worth, T^2 / sum(1/n)"
)

MEASURES: dict[str, Callable[[Record], bool | None]] = {
    "last step": lambda record: record.success_last_step,
    "any step": lambda record: record.success_any_step,
    "strict": lambda record: record.success_strict,
}


def results(
    records: Iterable[Record],
    meta: Mapping[str, Any],
    left_out: Collection[str] = frozenset(),
    shared: Mapping[Start, Start] | None = None,
    retried: Sequence[Record] = (),
) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        left_out: variants that are listed but not part of a task's rates (SIMPLER's camera poses).
        shared: starts that other tasks have too, see `eval.overlap.shared_starts`.
        retried: attempts that went wrong and were run again; they are told, not counted.
    """
    groups, same = _groups(records), shared or {}
    repeated = _repeated(groups, same)
    tasks = [
        {
            **_task(group, left_out),
            "averaged": group[0].key[:2] not in repeated,
            "same_starts": as_json(*group[0].key[:2], same),
            "retried": [record.error for record in retried if record.key[:2] == group[0].key[:2]],
        }
        for group in groups
    ]
    averaged = [task for task in tasks if task["averaged"] and task["n"]]
    rates, counts = ([task[name] for task in averaged] for name in ("success_rate", "n_effective"))
    return {
        "meta": dict(meta),
        "tasks": tasks,
        "mean_success": sum(rates) / len(rates) if rates else None,
        "mean_ci95": list(macro_interval(rates, counts)) if rates else None,
        "average": AVERAGE,
    }


def rate(records: Sequence[Record], measure: str) -> dict[str, Any]:
    """Success of the scored episodes of one task: counts, rate, intervals and posterior; None without episodes.

    Episodes of the same start under several variants are not independent, so they count for fewer in the intervals.
    """
    scored = [record for record in records if record.scored]
    outcomes = [bool(MEASURES[measure](record)) for record in scored]
    n, successes, starts = len(outcomes), sum(outcomes), [record.episode_id for record in scored]
    counts = {"n": n, "starts": len(set(starts)), "successes": successes}
    if n == 0:
        return counts | dict.fromkeys(("n_effective", "success_rate", "ci95", "ci95_clopper_pearson", "posterior"))
    effect = design_effect(outcomes, starts)
    believed = posterior(successes / effect, n / effect)
    return {
        **counts,
        "n_effective": n / effect,
        "success_rate": successes / n,
        "ci95": list(wilson(successes / effect, n / effect)),
        "ci95_clopper_pearson": list(clopper_pearson(successes / effect, n / effect)),
        "posterior": {"prior": "Beta(1, 1)", "mean": believed.mean, "ci95": [believed.low, believed.high]},
    }


def latency(samples: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """p50 and p99 [ms] of the round trip and of each stage; empty if the policy was never asked."""
    stages = {
        stage: {"p50": percentile(values, 50), "p99": percentile(values, 99)} for stage, values in samples.items()
    }
    total = stages.get(ROUND_TRIP)
    return {**total, "stages": stages} if total else {"p50": None, "p99": None, "stages": {}}


def samples_of(records: Iterable[Record]) -> dict[str, list[float]]:
    """Every stored latency [ms], stage by stage."""
    pooled: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for stage, measured in record.latency_ms["stages"].items():
            pooled[stage].extend(measured["samples"])
    return dict(pooled)


def success_table(results: Mapping[str, Any]) -> Table:
    """A row per task and measure, each `k/n = x% [low, high]`, and the mean; below, what they count.

    Args:
        results: the content of `results.json`.
    """
    tasks, mean = results["tasks"], mean_of(results)
    table = Table(
        title="success, with 95% intervals (Wilson)", caption=Text("\n".join(remarks(results))), caption_justify="left"
    )
    table.add_column("task", overflow="fold")
    table.add_column("measure")
    table.add_column("success", justify="right")
    table.add_column("errors", justify="right")
    for task in tasks:
        table.add_section()
        table.add_row(task["task"], "last step", Text(text_of(task)), str(task["errors"]))
        for measure in ("any_step", "strict"):
            table.add_row("", measure.replace("_", " "), Text(text_of(task[measure])), "")
        if len(task["per_variant"]) > 1:
            for name, measured in task["per_variant"].items():
                label = f"last step: {name}" + (" (not averaged)" if name in task["not_averaged"] else "")
                table.add_row("", label, Text(text_of(measured)), "")
    if mean:
        table.add_section()
        table.add_row(
            mean["label"], "last step", Text(f"n = {mean['n']}: {mean['share']}"), str(mean["errors"]), style="bold"
        )
    return table


def mean_of(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of the average over tasks; None if there is one task alone, or nothing was scored.

    Returns:
        `label`, `n` (episodes), `share` (`x% [low, high]`) and `errors`, of the tasks that it counts.
    """
    if len(results["tasks"]) < 2 or results["mean_success"] is None:
        return None
    tasks = [task for task in results["tasks"] if task["averaged"] and task["n"]]
    low, high = results["mean_ci95"]
    return {
        "label": f"mean over {len(tasks)} task" + "s" * (len(tasks) > 1),
        "n": sum(task["n"] for task in tasks),
        "share": f"{results['mean_success']:.1%} [{100 * low:.1f}, {100 * high:.1f}]",
        "errors": sum(task["errors"] for task in results["tasks"] if task["averaged"]),
    }


def remarks(results: Mapping[str, Any]) -> list[str]:
    """What the figures count: success, the average, what is not part of them, and what may have changed on the way."""
    tasks = results["tasks"]
    several = [results["average"]] if len(tasks) > 1 else []
    aside = [
        f"{task['task']}: {', '.join(task['not_averaged'])} not averaged" for task in tasks if task["not_averaged"]
    ]
    repeated = [f"{words}; not part of the mean" for task in tasks if (words := in_words(task))]
    again = [
        f"{task['task']}: {len(task['retried'])} attempt(s) went wrong and were run again, first: {task['retried'][0]}"
        for task in tasks
        if task["retried"]
    ]
    mixed = [f"software changed during this run: {'; '.join(words)}"] if (words := results["meta"].get("mixed")) else []
    return [*dict.fromkeys(task["convention"] for task in tasks), *several, *aside, *repeated, *again, *mixed]


def latency_table(tasks: Sequence[Mapping[str, Any]]) -> Table:
    """A row per task and stage."""
    table = Table(title=Text("latency of one answer [ms]"))
    table.add_column("task", overflow="fold")
    table.add_column("stage")
    table.add_column("p50", justify="right")
    table.add_column("p99", justify="right")
    for task in tasks:
        for stage, values in task["latency_ms"]["stages"].items():
            table.add_row(task["task"], stage, f"{values['p50']:.2f}", f"{values['p99']:.2f}")
    return table


def text_of(measured: Mapping[str, Any]) -> str:
    """`k/n = x% [low, high]`, or a dash if nothing was scored."""
    if not measured["n"]:
        return "-"
    low, high = measured["ci95"]
    share = f"{measured['successes']}/{measured['n']} = {measured['success_rate']:.1%}"
    return f"{share} [{100 * low:.1f}, {100 * high:.1f}]"


def _groups(records: Iterable[Record]) -> list[list[Record]]:
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.task, record.setting].append(record)
    return [groups[name] for name in sorted(groups)]


def _repeated(groups: Iterable[Sequence[Record]], shared: Mapping[Start, Start]) -> set[tuple[str, str]]:
    """(task, setting) of those whose starts are larger tasks' too, which were scored."""
    starts: dict[tuple[str, str], set[Start]] = {}
    for group in groups:
        own = [Start(*record.key[:2], record.episode_id) for record in group if record.scored]
        if own:
            starts[own[0][:2]] = {shared.get(start, start) for start in own}
    return starts.keys() - distinct(starts)


def _task(records: Sequence[Record], left_out: Collection[str]) -> dict[str, Any]:
    by_variant: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_variant[record.variant].append(record)
    averaged = [record for record in records if record.variant not in left_out] or list(records)
    return {
        "task": records[0].task,
        "setting": records[0].setting,
        **rate(averaged, "last step"),
        "convention": CONVENTION,
        "any_step": rate(averaged, "any step"),
        "strict": rate(averaged, "strict"),
        "errors": sum(not record.scored for record in records),
        "not_averaged": sorted(set(by_variant) & set(left_out)) if len(averaged) < len(records) else [],
        "per_variant": {name: rate(group, "last step") for name, group in sorted(by_variant.items())},
        "latency_ms": latency(samples_of(records)),
    }
