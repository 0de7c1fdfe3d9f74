"""One run on disk: a line per episode that survives kill -9, one writer at a time, one configuration per folder."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from vla.api import InputError

FORMAT = 1
NOTES = "notes"
RETRIED = "retried.jsonl"  # attempts that went wrong and were run again, in the form of episodes.jsonl
OUTCOMES = ("finished", "timeout", "error")


class Key(NamedTuple):
    """What makes two lines the same episode."""

    task: str
    setting: str
    variant: str
    episode_id: int


@dataclass(frozen=True)
class Record:
    """One line of `episodes.jsonl`.

    Attributes:
        success_last_step: SIMPLER's score; None when the episode did not finish, which is neither success nor failure.
        outcome: `finished`, `timeout` (the policy missed its deadline) or `error`.
        sim_seconds: [s] of simulated time.
        wall_seconds: [s] of real time.
        latency_ms: p50 and p99 of the round trip, and per stage p50, p99 and every sample, in milliseconds.
        video: path relative to the run's folder, or "".
    """

    task: str
    setting: str
    variant: str
    episode_id: int
    seed: int
    instruction: str
    success_last_step: bool | None
    success_any_step: bool | None
    success_strict: bool | None
    steps: int
    outcome: str
    error: str
    sim_seconds: float
    wall_seconds: float
    latency_ms: Mapping[str, Any]
    policy: str
    recipe: str
    checkpoint: str
    video: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise InputError(f"outcome must be one of {', '.join(OUTCOMES)}; got {self.outcome!r}")

    @property
    def key(self) -> Key:
        return Key(self.task, self.setting, self.variant, self.episode_id)

    @property
    def scored(self) -> bool:
        """Whether this episode counts as success or failure."""
        return self.outcome == "finished"

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "Record":
        """Read one line.

        Raises:
            InputError: if it is not a JSON object with exactly these fields.
        """
        try:
            values = json.loads(line)
        except ValueError as error:
            raise InputError(f"not JSON: {error}") from error
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            got = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise InputError(f"an episode needs exactly the fields {sorted(names)}; got {got}")
        return cls(**values)


@dataclass
class RunFolder:
    """The folder of one run, held by one writer; use it as a context manager.

    Nothing that is there changes before `sign`, `mend` or `add`.

    Args:
        path: created if it is missing.

    Raises:
        InputError: on entering, if the folder cannot be written, is in use, was written in another format, or holds
            damaged lines.
    """

    path: Path
    records: dict[Key, Record] = field(default_factory=dict)
    _lock: int = -1
    _cut: int | None = None  # bytes of whole lines, if what a kill left of a line follows

    @property
    def episodes(self) -> Path:
        return self.path / "episodes.jsonl"

    @property
    def identity(self) -> Path:
        return self.path / "run.json"

    @property
    def results(self) -> Path:
        return self.path / "results.json"

    def __enter__(self) -> "RunFolder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"out={self.path} cannot be written: {error.strerror}; choose another folder") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check_format()
            self.records = self._read()
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, BlockingIOError):
                raise InputError(f"another evaluation is writing to out={self.path}; choose another folder") from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)  # closing releases the lock, as does any death of this process

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Refuse to continue a run that was made with other values; values the run does not name yet are new.

        Raises:
            InputError: naming both values.
        """
        if not self.identity.exists():
            if there := [file.name for file in (self.episodes, self.results) if file.exists()]:
                raise InputError(f"out={self.path} holds {there[0]} of a run without run.json; choose another folder")
            return
        stored = self._stored_identity()
        for name, value in identity.items():
            if name in stored and stored[name] != value:
                raise InputError(
                    f"out={self.path} holds a run with {name}={stored[name]}, this one has {name}={value}; "
                    "repeat those settings to continue it, or choose another folder"
                )

    def sign(self, identity: Mapping[str, Any], notes: Mapping[str, Any] | None = None) -> None:
        """Store what this run is, after `claim` accepted it, and notes about it that may change when it continues."""
        self.claim(identity)
        content = {"format": FORMAT, **identity, NOTES: dict(notes or {})}
        write_atomically(self.identity, json.dumps(content, indent=2) + "\n")

    def mend(self) -> None:
        """Cut off what a kill left of a last line; the run was accepted."""
        if self._cut is not None:
            os.truncate(self.episodes, self._cut)
            self._cut = None

    @property
    def signed(self) -> dict[str, Any]:
        """What this run is, as last signed; empty before."""
        stored = self._stored_identity() if self.identity.exists() else {}
        return {name: value for name, value in stored.items() if name not in ("format", NOTES)}

    @property
    def notes(self) -> dict[str, Any]:
        """As last signed; empty before."""
        notes = self._stored_identity().get(NOTES) if self.identity.exists() else None
        return notes if isinstance(notes, dict) else {}

    def add(self, record: Record) -> None:
        """Store one episode so that a later kill cannot lose it; a retried episode takes its old place."""
        self.mend()
        replaced = self.records.get(record.key)
        self.records[record.key] = record
        if replaced is not None:
            if not replaced.scored:
                lines = [item.line() for item in (*self.retried, replaced)]
                write_atomically(self.path / RETRIED, b"".join(lines))
            write_atomically(self.episodes, b"".join(item.line() for item in self.records.values()))
            return
        with self.episodes.open("ab") as file:
            file.write(record.line())
            file.flush()
            os.fsync(file.fileno())

    @property
    def retried(self) -> list[Record]:
        """How attempts ended that went wrong and were run again."""
        file = self.path / RETRIED
        lines = file.read_bytes().splitlines() if file.exists() else []
        return [Record.parse(line) for line in dict.fromkeys(lines)]  # a kill may have stored one without its successor

    def _check_format(self) -> None:
        """Refuse a run of another version, whose lines may have other fields."""
        if self.identity.exists() and (got := self._stored_identity().get("format")) != FORMAT:
            raise InputError(f"out={self.path} was written in results format {got}, this is {FORMAT}; choose another")

    def _stored_identity(self) -> dict[str, Any]:
        try:
            stored = json.loads(self.identity.read_text())
        except ValueError as error:
            raise InputError(f"{self.identity} is damaged: {error}; choose another folder") from error
        if not isinstance(stored, dict):
            raise InputError(f"{self.identity} must hold an object, got {type(stored).__name__}; choose another folder")
        return stored

    def _read(self) -> dict[Key, Record]:
        """Read the episodes; what a kill left of a last line does not count."""
        if not self.episodes.exists():
            return {}
        data = self.episodes.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            records = parse_records(whole, self.episodes)
        except InputError as error:
            raise InputError(f"{error}; choose another folder") from error
        self._cut = len(whole) if len(whole) < len(data) else None
        return records


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader, or a kill, sees either the old or the new content."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def parse_records(lines: bytes, source: Path) -> dict[Key, Record]:
    """The records of whole lines of an `episodes.jsonl`.

    Raises:
        InputError: naming the source and the line that is no record, or repeats one.
    """
    records: dict[Key, Record] = {}
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            record = Record.parse(line)
        except InputError as error:
            raise InputError(f"{source}, line {number}: {error}") from error
        if record.key in records:
            raise InputError(f"{source}, line {number}: {record.key} is there twice")
        records[record.key] = record
    return records
