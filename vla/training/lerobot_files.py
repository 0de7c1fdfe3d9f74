"""The files of a LeRobotDataset v3.0 directory, read strictly: what is wrong is named by file and field."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vla.api import InputError, Quantity

VERSION = "v3.0"
UNNAMED = "robot"


@dataclass(frozen=True)
class VideoPart:
    """Where the frames of one episode are: `length` frames of a file from frame `start` on."""

    path: Path
    start: int
    length: int


@dataclass(frozen=True)
class Episodes:
    """Episodes in order.

    Attributes:
        lengths: (episodes,) frames.
        data_files: data files in order.
        videos: feature -> one part for each episode.
    """

    lengths: NDArray[np.int64]
    data_files: list[Path]
    videos: dict[str, list[VideoPart]]


@dataclass(frozen=True)
class Directory:
    """A dataset directory whose meta/info.json has been read.

    Attributes:
        root: the directory.
        info: contents of meta/info.json.
    """

    root: Path
    info: dict[str, Any]

    @classmethod
    def open(cls, root: Path) -> "Directory":
        """Read meta/info.json.

        Raises:
            InputError: if it is missing, damaged, incomplete or of another version.
        """
        path = root / "meta" / "info.json"
        if not path.is_file():
            raise InputError(f"{root} is not a LeRobotDataset: {path} is missing")
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}") from error
        needed = ("codebase_version", "fps", "features", "data_path", "video_path", "total_episodes", "total_frames")
        missing = [key for key in needed if key not in info]
        if missing:
            raise InputError(f"{path} lacks {missing}")
        if info["codebase_version"] != VERSION:
            raise InputError(f"{path}: codebase_version is {info['codebase_version']!r}; allowed: {VERSION!r}")
        if info["total_episodes"] < 1:
            raise InputError(f"{path}: total_episodes is {info['total_episodes']}; there is nothing to read")
        return cls(root, info)

    @property
    def features(self) -> dict[str, Any]:
        return self.info["features"]

    @property
    def fps(self) -> float:
        return self.info["fps"]

    @property
    def robot(self) -> str:
        """Name of the robot; a dataset need not say it."""
        return self.info.get("robot_type") or UNNAMED

    def cameras(self) -> list[str]:
        """Names of all videos."""
        return sorted(key for key, each in self.features.items() if each["dtype"] == "video")

    def video(self, feature: str) -> str:
        """The feature's name, if it is a video.

        Raises:
            InputError: naming the videos that exist.
        """
        videos = self.cameras()
        if feature not in videos:
            raise InputError(f"{self.root / 'meta/info.json'} has no video {feature!r}; it has {videos}")
        described = self.features[feature].get("info", {}).get("video.fps", self.fps)
        if described != self.fps:
            raise InputError(f"{self.root / 'meta/info.json'}: fps is {self.fps}, but of {feature} it is {described}")
        return feature

    def quantities(self, feature: str) -> tuple[Quantity, ...]:
        """Names and units of a vector's numbers; an unknown unit is ""."""
        described = self.features[feature]
        count = described["shape"][0]
        names = described.get("names") or [str(number) for number in range(count)]
        units = described.get("units") or [""] * count
        return tuple(Quantity(name, unit) for name, unit in zip(names, units, strict=True))

    def instructions(self) -> list[str]:
        """Instruction of each task index.

        Raises:
            InputError: if meta/tasks.parquet is damaged or its indices are not 0, 1, 2, …
        """
        path = self.root / "meta" / "tasks.parquet"
        table = read_table(path)
        text = next((name for name in ("task", "__index_level_0__") if name in table.column_names), "task")
        require_columns(path, table, [text, "task_index"])
        indices = numbers(table["task_index"])
        order = np.argsort(indices)
        if not np.array_equal(indices[order], np.arange(len(table))):
            raise InputError(f"{path}: task_index must be 0 .. {len(table) - 1}")
        texts = table[text].to_pylist()
        return [texts[row] for row in order]

    def episodes(self, videos: Sequence[str]) -> Episodes:
        """Read meta/episodes.

        Raises:
            InputError: if a field is missing, an episode is empty, or episodes are not in order.
        """
        paths = sorted((self.root / "meta" / "episodes").glob("*/*.parquet"))
        if not paths:
            raise InputError(f"{self.root / 'meta/episodes'} holds no parquet file")
        rows: list[dict[str, Any]] = []
        for path in paths:
            table = read_table(path)
            places = [
                f"videos/{key}/{name}" for key in videos for name in ("chunk_index", "file_index", "from_timestamp")
            ]
            needed = ["episode_index", "length", "data/chunk_index", "data/file_index", *places]
            require_columns(path, table, needed)
            rows += table.select(needed).to_pylist()
        rows.sort(key=lambda row: row["episode_index"])
        self._check_episodes(paths[0].parent.parent, rows)
        parts = {key: [self._part(row, key) for row in rows] for key in videos}
        files = [self._path("data_path", row["data/chunk_index"], row["data/file_index"]) for row in rows]
        lengths = np.array([row["length"] for row in rows], np.int64)
        return Episodes(lengths, list(dict.fromkeys(files)), parts)

    def frames(self, episodes: Episodes, vectors: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Vectors (frames, dim) float32 and `task_index` (frames,) of all data files.

        Raises:
            InputError: on a missing or misshapen column, a value that is not finite, or frames that do not add up.
        """
        parts = [self._frames(path, vectors) for path in episodes.data_files]
        table = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        expected = np.repeat(np.arange(len(episodes.lengths)), episodes.lengths)
        if not np.array_equal(table.pop("episode_index"), expected):
            raise InputError(f"{self.root / 'data'}: episode_index does not follow the lengths in meta/episodes")
        return table

    def _frames(self, path: Path, vectors: Sequence[str]) -> dict[str, NDArray[Any]]:
        table = read_table(path)
        require_columns(path, table, [*vectors, "episode_index", "task_index"])
        found: dict[str, NDArray[Any]] = {key: self._vector(path, table, key) for key in vectors}
        return found | {key: numbers(table[key]) for key in ("episode_index", "task_index")}

    def _vector(self, path: Path, table: pa.Table, key: str) -> NDArray[np.float32]:
        if key not in self.features:
            raise InputError(f"{self.root / 'meta/info.json'} has no feature {key!r}; it has {sorted(self.features)}")
        shape = (len(table), self.features[key]["shape"][0])
        values = numbers(table[key]).astype(np.float32)
        if values.size != shape[0] * shape[1]:
            raise InputError(f"{path}: {key} holds {values.size} numbers, {shape[0]} rows of {shape[1]} are needed")
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values.reshape(shape)))[0][0])
            raise InputError(f"{path}: {key} holds a value that is not finite in row {row}")
        return values.reshape(shape)

    def _check_episodes(self, path: Path, rows: Sequence[dict[str, Any]]) -> None:
        for number, row in enumerate(rows):
            if row["episode_index"] != number:
                raise InputError(f"{path}: episode_index must be 0, 1, 2, …; {number} is missing")
            if row["length"] < 1:
                raise InputError(f"{path}: episode {number} is empty (length {row['length']})")
        totals = {"total_episodes": len(rows), "total_frames": sum(row["length"] for row in rows)}
        for key, total in totals.items():
            if self.info[key] != total:
                raise InputError(f"{self.root / 'meta/info.json'}: {key} is {self.info[key]}, but {path} has {total}")

    def _part(self, row: dict[str, Any], key: str) -> VideoPart:
        place = (row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"])
        start = round(row[f"videos/{key}/from_timestamp"] * self.fps)
        return VideoPart(self._path("video_path", *place, video_key=key), start, row["length"])

    def _path(self, template: str, chunk: int, file: int, **names: str) -> Path:
        return self.root / self.info[template].format(chunk_index=chunk, file_index=file, **names)


def numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """The numbers of a column, of lists or plain ones, in a row; what is null becomes NaN.

    Of numbers without nulls only their memory is asked for: pyarrow's own conversion loads pandas, which takes 50 MB.
    """
    parts = [chunk.flatten() if pa.types.is_nested(chunk.type) else chunk for chunk in column.chunks]
    return np.concatenate([_as_numpy(part) for part in parts]) if parts else np.empty(0, np.int64)


def _as_numpy(part: pa.Array) -> NDArray[Any]:
    plain = pa.types.is_integer(part.type) or pa.types.is_floating(part.type)
    return np.from_dlpack(part) if plain and not part.null_count else part.to_numpy(zero_copy_only=False)


def read_table(path: Path) -> pa.Table:
    """Read a parquet file.

    Raises:
        InputError: if it is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def require_columns(path: Path, table: pa.Table, names: Sequence[str]) -> None:
    """Check that a table has these columns.

    Raises:
        InputError: naming the missing ones.
    """
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise InputError(f"{path} lacks {missing}; it has {table.column_names}")
