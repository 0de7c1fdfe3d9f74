"""A finished run that another is compared with on the same starts: the `paired` part of `results.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.compare.runs import STARTS, Run, check_starts, read
from eval.evaluate import key_of
from eval.planning import check_pairs
from eval.results import Key, RunFolder
from eval.rollout import Episode
from eval.settings import Settings
from eval.several import MEASURE
from vla.api import InputError


@dataclass(frozen=True)
class Baseline:
    """What a run is compared with.

    Attributes:
        run: finished.
        keys: the episodes to compare, all in the baseline.
        margin: largest loss of success rate that still counts as none.
    """

    run: Run
    keys: tuple[Key, ...]
    margin: float

    @classmethod
    def read(cls, folder: str, settings: Settings, episodes: Sequence[Episode]) -> "Baseline":
        """Read a baseline, before anything is run.

        Args:
            folder: of the baseline.
            settings: of the run that is to be compared with it.
            episodes: of that run.

        Raises:
            InputError: if there is no finished run in the folder, it is that of the new run, it has other starts or
                lacks one of them, or a task has a single start.
        """
        if Path(folder).resolve() == Path(settings.out).resolve():
            raise InputError(f"baseline={folder} is out itself; a run cannot be compared with itself")
        check_pairs(episodes)
        run = read(Path(folder), Path(folder).resolve().name)
        for name in STARTS:  # an episode's seed alone does not tell a grid from random starts, or scenes apart
            if name in run.identity and run.identity[name] != (new := getattr(settings, name)):
                old = run.identity[name]
                raise InputError(f"baseline={folder} does not share the starts of this run: {name}={old}, not {new}")
        for episode in episodes:
            record = run.records.get(key_of(episode))
            if record is None or record.seed != episode.seed:
                start = "/".join(map(str, key_of(episode)))
                raise InputError(f"baseline={folder} does not share the starts of this run: it lacks {start}")
        return cls(run, tuple(key_of(episode) for episode in episodes), settings.margin)

    def paired(self, folder: RunFolder, results: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a run differs in: overall (the mean over tasks), and of each task; None while episodes are missing.

        Raises:
            InputError: if the runs do not share their starts, or nothing that is averaged is left to compare.
        """
        from eval.compare.comparison import compare  # scipy takes a second to import

        if not all(key in folder.records and folder.records[key].scored for key in self.keys):
            return None
        second = Run("run", folder.path, folder.signed, results, folder.records)
        runs = [replace(run, records={key: run.records[key] for key in self.keys}) for run in (self.run, second)]
        check_starts(runs)
        (comparison,) = compare(runs, MEASURE, self.margin)["comparisons"]
        shown = {"baseline": str(self.run.path), "margin": self.margin, "tasks": comparison["tasks"]}
        return {**shown, **comparison["overall"]}
