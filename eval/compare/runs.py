"""Finished runs, read without changing them, and the proof that they ran the same starts."""

import fcntl
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.overlap import Start, from_json, in_words
from eval.results import FORMAT, NOTES, Key, Record, parse_records
from vla.api import InputError

STARTS = ("setting", "scene", "starts", "seed")  # keys of run.json that choose starts
VERSIONS = ("mujoco", "numpy")  # packages that can change what a start looks like


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        name: what it is called in tables.
        path: its folder.
        identity: `run.json` without its notes: what made this run what it is.
        results: `results.json`.
        records: every episode, all of them scored.
    """

    name: str
    path: Path
    identity: Mapping[str, Any]
    results: Mapping[str, Any]
    records: Mapping[Key, Record]

    @property
    def averaged(self) -> dict[Key, Record]:
        """The episodes that count, in the order in which they were to be run; not those of variants left out."""
        left_out = {(task["task"], task["setting"]): task["not_averaged"] for task in self.results["tasks"]}
        kept = [key for key in self.records if key.variant not in left_out[key.task, key.setting]]
        return {key: self.records[key] for key in sorted(kept, key=lambda key: (key.episode_id, key))}

    @property
    def same_starts(self) -> dict[Start, Start]:
        """Starts that a larger task has too -> that task's."""
        return from_json(self.results["tasks"])

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """(task, setting) of all tasks, sorted."""
        return sorted({(key.task, key.setting) for key in self.records})


def read(path: Path, name: str) -> Run:
    """Read a finished run.

    Raises:
        InputError: if there is none, or it is unfinished, damaged, or of another version.
    """
    if not path.is_dir():
        raise InputError(f"there is no run {path}")
    if not (path / "run.json").is_file() or not (path / "episodes.jsonl").is_file():
        raise InputError(f"{path} is not the folder of a run: it needs run.json and episodes.jsonl")
    _check_idle(path)
    identity = _object(path / "run.json")
    if identity.pop("format", None) != FORMAT:
        raise InputError(f"{path} was written in another results format than {FORMAT}; run it again with this version")
    identity.pop(NOTES, None)
    records = _records(path / "episodes.jsonl")
    return Run(name, path, identity, _finished(path, records), records)


def check_starts(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot be paired with the first.

    Raises:
        InputError: naming both runs and what differs between their starts.
    """
    baseline = runs[0]
    paths = [run.path.resolve() for run in runs]
    if repeated := [run for run in runs if paths.count(run.path.resolve()) > 1]:
        raise InputError(f"{repeated[0].path} is given twice; a run cannot be compared with itself")
    for run in runs[1:]:
        if difference := _difference(baseline, run):
            raise InputError(f"{run.path} does not share the starts of {baseline.path}: {difference}")


def notes(runs: Sequence[Run]) -> list[str]:
    """What averages leave out, and what differs within and between runs and may have changed what the policies saw."""
    repeated = [f"{words}; not part of the mean" for task in runs[0].results["tasks"] if (words := in_words(task))]
    meta = [run.results["meta"] for run in runs]
    facts: dict[str, Callable[[Mapping[str, Any]], Any]] = {
        "version of Cadence": lambda meta: meta["version"],
        "commit": lambda meta: meta["git"],
        "OpenGL renderer": lambda meta: meta["gl_renderer"],
        **{name: lambda meta, name=name: meta["packages"].get(name) for name in VERSIONS},
    }
    mixed = [
        f"{run.name} was made with changing software: {'; '.join(w)}"
        for run in runs
        if (w := run.results["meta"].get("mixed"))
    ]
    values = {name: list(dict.fromkeys(str(fact(item)) for item in meta)) for name, fact in facts.items()}
    return [*repeated, *mixed] + [
        f"the runs differ in {name}: {', '.join(seen)}" for name, seen in values.items() if len(seen) > 1
    ]


def _difference(first: Run, second: Run) -> str:
    """What differs between the starts of two runs, in words; "" if nothing does."""
    for name in STARTS:
        if name in first.identity and name in second.identity and first.identity[name] != second.identity[name]:
            return f"{name}={second.identity[name]} instead of {name}={first.identity[name]}"
    if first.tasks != second.tasks:
        names = [", ".join("/".join(task) for task in run.tasks) for run in (second, first)]
        return f"its tasks are {names[0]} instead of {names[1]}"
    missing, more = ([key for key in a.records if key not in b.records] for a, b in ((first, second), (second, first)))
    for words, keys in (("it lacks {} episode(s)", missing), ("it has {} more episode(s)", more)):
        if keys:
            return f"{words.format(len(keys))}, the first is {'/'.join(map(str, keys[0]))}"
    seeds = [key for key, record in first.records.items() if second.records[key].seed != record.seed]
    if seeds:
        return f"{len(seeds)} episode(s) have another seed, the first is {'/'.join(map(str, seeds[0]))}"
    variants = [sorted({key[:3] for key in run.averaged}) for run in (first, second)]
    return "" if variants[0] == variants[1] else "other variants are averaged"


def _check_idle(path: Path) -> None:
    """Refuse a folder that an evaluation holds."""
    lock = path / ".lock"
    if not lock.exists():  # a copy, perhaps
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{path} is unfinished: an evaluation is writing to it") from error


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold an object, got {type(content).__name__}")
    return content


def _records(path: Path) -> dict[Key, Record]:
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        raise InputError(f"{path.parent} is unfinished: its last episode was cut off; {_FINISH}")
    records = parse_records(data, path)
    if not records:
        raise InputError(f"{path.parent} holds no episodes")
    return records


_FINISH = "run cadence-eval with the same out to finish it"


def _finished(path: Path, records: Mapping[Key, Record]) -> dict[str, Any]:
    """`results.json`, if it is of just these episodes and all of them were scored."""
    if not (path / "results.json").is_file():
        raise InputError(f"{path} is unfinished: it has no results.json; {_FINISH}")
    results = _object(path / "results.json")
    try:
        counted = [
            task["errors"] + sum(each["n"] for each in task["per_variant"].values()) for task in results["tasks"]
        ]
        tasks = {(task["task"], task["setting"]) for task in results["tasks"] if task["not_averaged"] is not None}
        from_json(results["tasks"])
        known = {"version", "git", "gl_renderer", "packages"} <= results["meta"].keys()
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path / 'results.json'} is of another version ({error!r}); {_FINISH}") from error
    if not known or sum(counted) != len(records) or tasks != {key[:2] for key in records}:
        raise InputError(f"{path} is unfinished: results.json is not of the episodes beside it; {_FINISH}")
    if broken := [record for record in records.values() if not record.scored]:
        raise InputError(f"{path} is unfinished: {len(broken)} episode(s) ended in error or timeout; {_FINISH}")
    return results
