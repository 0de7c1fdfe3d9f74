"""The LeRobotDataset v3.0 directory format, as huggingface/lerobot's own loader opens it.

    meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
    data/chunk-000/file-000.parquet  videos/<feature>/chunk-000/file-000.mp4     (many episodes in each file)

Shared by who collects demonstrations and who records served episodes, so it knows neither (numpy and pyarrow).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{FILE}.mp4"
EPISODES_PATH = f"meta/episodes/{FILE}.parquet"
IMAGES = "observation.images."
STATE, ACTION, KEYPOINTS = "observation.state", "action", "observation.environment_state"
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
INDEX_TYPES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}

Statistics = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Schema:
    """What one frame of a dataset holds.

    Args:
        robot: robot's name.
        fps: frames a second, a whole number because the format wants one.
        cameras: camera name -> (height, width).
        vectors: feature name -> [(name, unit) of every number].
    """

    robot: str
    fps: int
    cameras: Mapping[str, tuple[int, int]]
    vectors: Mapping[str, Sequence[tuple[str, str]]]

    def features(self) -> dict[str, dict[str, Any]]:
        """The `features` of meta/info.json."""
        features = {IMAGES + name: self._video(*size) for name, size in self.cameras.items()}
        for key, numbers in self.vectors.items():
            names, units = [name for name, _ in numbers], [unit for _, unit in numbers]
            features[key] = {"dtype": "float32", "shape": [len(names)], "names": names, "units": units}
        for key, dtype in INDEX_TYPES.items():
            features[key] = {"dtype": dtype, "shape": [1], "names": None}
        return features

    def arrow(self) -> pa.Schema:
        """Columns of the data files; lerobot's loader takes what has shape [1] for a number, not for a list of one."""
        vectors = [(key, _vector(len(numbers))) for key, numbers in self.vectors.items()]
        return pa.schema(vectors + [(key, getattr(pa, dtype)()) for key, dtype in INDEX_TYPES.items()])

    def _video(self, height: int, width: int) -> dict[str, Any]:
        info = {
            "video.height": height,
            "video.width": width,
            "video.channels": 3,
            "video.codec": "h264",
            "video.pix_fmt": "gbrp",
            "video.is_depth_map": False,
            "video.fps": self.fps,
            "has_audio": False,
        }
        return {"dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"], "info": info}


def file_indices(number: int) -> dict[str, int]:
    """Chunk and file index of the n-th file."""
    return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}


def statistics(values: NDArray[Any]) -> Statistics:
    """Statistics of a feature over frames: (frames,) or (frames, dim) -> arrays (1,) or (dim,)."""
    table = values.reshape(len(values), -1).astype(np.float64)
    quantiles = dict(zip(QUANTILES, np.quantile(table, list(QUANTILES.values()), axis=0), strict=True))
    moments = {"min": table.min(0), "max": table.max(0), "mean": table.mean(0), "std": table.std(0)}
    return moments | {"count": np.array([len(table)])} | quantiles


def image_statistics(
    images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], frames: int = 4, stride: int = 8
) -> Statistics:
    """Statistics of a subsample of pixels in [0, 1], per channel, arrays (3, 1, 1)."""
    images = np.asarray(images)
    chosen = np.linspace(0, len(images) - 1, min(frames, len(images))).round().astype(int)
    pixels = images[chosen, ::stride, ::stride].reshape(-1, 3) / 255.0
    found = statistics(pixels)
    return {key: value if key == "count" else value.reshape(3, 1, 1) for key, value in found.items()}


def combine(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of the union; quantiles are count-weighted means, as lerobot combines them."""
    counts = np.array([part["count"][0] for part in parts], dtype=np.float64)

    def weighted(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.average(np.stack(values), axis=0, weights=counts)

    mean = weighted([part["mean"] for part in parts])
    variance = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    ends = {"min": np.min([part["min"] for part in parts], axis=0), "max": np.max([part["max"] for part in parts], 0)}
    quantiles = {key: weighted([part[key] for part in parts]) for key in QUANTILES}
    return ends | {"mean": mean, "std": np.sqrt(variance), "count": np.array([int(counts.sum())])} | quantiles


def write_data(path: Path, schema: pa.Schema, episodes: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write a data file with one row group for each episode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for columns in episodes:
            writer.write_table(pa.table([_column(columns[field.name], field) for field in schema], schema=schema))


def write_tasks(root: Path, instructions: Sequence[str]) -> None:
    """Write meta/tasks.parquet, a pandas table whose index is the instruction."""
    columns = [("task_index", "int64", "int64", None), ("task", "unicode", "object", None)]
    fields = ("name", "pandas_type", "numpy_type", "metadata")
    described = [dict(zip(fields, column, strict=True)) | {"field_name": column[0]} for column in columns]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array(range(len(instructions)), pa.int64()), "task": list(instructions)})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), root / "meta" / "tasks.parquet")


def write_episodes(root: Path, rows: Sequence[Mapping[str, Any]], number: int = 0) -> None:
    """Write the n-th file of meta/episodes: one row an episode, its place in data and videos, its statistics."""
    path = root / EPISODES_PATH.format(**file_indices(number))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


def index_columns(episode: int, first_frame: int, tasks: Sequence[int], fps: int) -> dict[str, NDArray[Any]]:
    """The columns that every frame of an episode has beside its vectors.

    Args:
        episode: its number.
        first_frame: its first frame's number in the dataset.
        tasks: index of each frame's instruction.
        fps: [1/s].
    """
    steps = np.arange(len(tasks))
    return {
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.full(len(tasks), episode),
        "index": first_frame + steps,
        "task_index": np.array(tasks),
    }


def episode_row(
    columns: Mapping[str, NDArray[Any]],
    images: Mapping[str, Statistics],
    tasks: Sequence[str],
    place: Mapping[str, int],
    offset: int,
    fps: int,
    episodes_file: int = 0,
) -> dict[str, Any]:
    """A row of meta/episodes.

    Args:
        columns: all columns of the episode's frames.
        images: feature of each camera -> statistics.
        tasks: instructions in it.
        place: chunk and file index of its data and videos.
        offset: frames before it in these videos.
        fps: [1/s].
        episodes_file: number of the file of meta/episodes that the row goes to.
    """
    first, length = int(columns["index"][0]), len(columns["index"])
    row: dict[str, Any] = {"episode_index": int(columns["episode_index"][0]), "tasks": list(tasks), "length": length}
    row |= {f"data/{key}": value for key, value in place.items()}
    row |= {"dataset_from_index": first, "dataset_to_index": first + length}
    for feature in images:
        row |= {f"videos/{feature}/{key}": value for key, value in place.items()}
        times = {"from_timestamp": offset / fps, "to_timestamp": (offset + length) / fps}
        row |= {f"videos/{feature}/{key}": time for key, time in times.items()}
    for key, found in {**{key: statistics(values) for key, values in columns.items()}, **images}.items():
        row |= {f"stats/{key}/{name}": value for name, value in as_lists(found).items()}
    return row | {f"meta/episodes/{key}": value for key, value in file_indices(episodes_file).items()}


def write_info(root: Path, schema: Schema, episodes: int, frames: int, tasks: int) -> None:
    """Write meta/info.json."""
    info = {
        "codebase_version": VERSION,
        "robot_type": schema.robot,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": schema.fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": schema.features(),
    }
    write_json(root / "meta" / "info.json", info)


def write_stats(root: Path, stats: Mapping[str, Statistics]) -> None:
    """Write meta/stats.json."""
    write_json(root / "meta" / "stats.json", {key: as_lists(value) for key, value in stats.items()})


def as_lists(stats: Statistics) -> dict[str, list[Any]]:
    """Statistics as plain lists."""
    return {key: value.tolist() for key, value in stats.items()}


def write_json(path: Path, value: object) -> None:
    """Write JSON with a stable layout."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _vector(size: int) -> pa.DataType:
    return pa.float32() if size == 1 else pa.list_(pa.float32(), size)


def _column(values: NDArray[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_fixed_size_list(field.type):
        flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1), pa.float32())
        return pa.FixedSizeListArray.from_arrays(flat, type=field.type)
    return pa.array(values.reshape(-1), field.type)
