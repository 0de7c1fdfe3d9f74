"""Starts that several tasks have in common: what averages and tests of several tasks count once.

SIMPLER's suite names parts of tasks as tasks of their own: the official starts of `google_robot_open_top_drawer` are
among those of `google_robot_open_drawer`. Each keeps its own rate, but an average that took both would count the same
evidence twice, and be surer than it may.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Start(NamedTuple):
    """One start of a task, by its number."""

    task: str
    setting: str
    number: int


def shared_starts(
    starts: Iterable[Start], looks: Callable[[str, str], Sequence[Hashable] | None]
) -> dict[Start, Start]:
    """Each start that a larger task has too -> that task's.

    Args:
        starts: those that were run.
        looks: task, setting -> by number what makes an official start, equal where starts are; None: nothing to share.
    """
    by_task: dict[tuple[str, str], set[Start]] = {}
    for start in starts:
        by_task.setdefault(start[:2], set()).add(start)
    first: dict[Hashable, Start] = {}
    shared: dict[Start, Start] = {}
    for name, own in _largest_first(by_task):
        if (seen := looks(*name)) is None:
            continue
        for start in sorted(own):
            same = first.setdefault((start.setting, seen[start.number]), start)
            if same.task != start.task:
                shared[start] = same
    return shared


def distinct(starts: Mapping[tuple[str, str], Collection[Start]]) -> list[tuple[str, str]]:
    """The tasks to average, sorted: without those whose starts all belong to larger ones that are among them.

    Args:
        starts: (task, setting) -> its starts, each replaced by the one that stands for it.
    """
    seen: set[Start] = set()
    kept = []
    for name, own in _largest_first(starts):
        if not seen.issuperset(own):
            kept.append(name)
            seen.update(own)
    return sorted(kept)


def as_json(task: str, setting: str, shared: Mapping[Start, Start]) -> dict[str, dict[str, int]]:
    """The starts that a task shares: the other task's name -> this one's numbers -> the other's."""
    told: dict[str, dict[str, int]] = {}
    for start, same in sorted(shared.items()):
        if start[:2] == (task, setting):
            told.setdefault(same.task, {})[str(start.number)] = same.number
    return told


def from_json(tasks: Iterable[Mapping[str, Any]]) -> dict[Start, Start]:
    """What `as_json` told of the tasks of a `results.json`."""
    return {
        Start(task["task"], task["setting"], int(number)): Start(other, task["setting"], theirs)
        for task in tasks
        for other, numbers in task["same_starts"].items()
        for number, theirs in numbers.items()
    }


def in_words(task: Mapping[str, Any]) -> str:
    """Why a task of a `results.json` is not part of the mean; "" if it is."""
    return "" if task["averaged"] else f"{task['task']}: its starts are those of {' and '.join(task['same_starts'])}"


def _largest_first(
    starts: Mapping[tuple[str, str], Collection[Start]],
) -> list[tuple[tuple[str, str], Collection[Start]]]:
    return sorted(starts.items(), key=lambda item: (-len(item[1]), item[0]))
