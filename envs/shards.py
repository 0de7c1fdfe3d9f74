"""Shards: the pieces in which demonstrations are collected, and how they become one dataset.

frames.parquet   state, action, key points, instruction and attempt of every frame
<camera>.mp4     the same frames
shard.json       task, schema, attempts tried, every kept episode with its image statistics
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from envs import lerobot_dataset as lerobot
from envs.demonstrations import Demonstration
from envs.errors import EnvError
from envs.lerobot_video import write_video


@dataclass(frozen=True)
class Shard:
    """One finished shard.

    Attributes:
        directory: its files.
        task: environment name.
        number: place among the task's shards.
        tried: attempts made.
        schema: what a frame holds.
        episodes: of every success: attempt, seed, variant, length, images (statistics of each camera).
    """

    directory: Path
    task: str
    number: int
    tried: int
    schema: lerobot.Schema
    episodes: list[dict[str, Any]]

    @property
    def frames(self) -> int:
        return sum(episode["length"] for episode in self.episodes)


def write_shard(
    directory: Path, task: str, number: int, tried: int, schema: lerobot.Schema, found: Sequence[Demonstration]
) -> None:
    """Write a shard so that `directory` appears complete or not at all."""
    partial = directory.with_name(f"{directory.name}.{os.getpid()}.partial")
    partial.mkdir()
    if found:
        for camera in schema.cameras:
            path = partial / f"{camera}.mp4"
            write_video(path, [demonstration.images[camera] for demonstration in found], schema.fps)
        pq.write_table(_frames(schema, found), partial / "frames.parquet")
    described = {"robot": schema.robot, "fps": schema.fps, "cameras": schema.cameras, "vectors": schema.vectors}
    episodes = [_summary(demonstration) for demonstration in found]
    report = {"task": task, "number": number, "tried": tried, "schema": described, "episodes": episodes}
    lerobot.write_json(partial / "shard.json", report)
    partial.rename(directory)


def read_shard(directory: Path) -> Shard:
    """Read what `write_shard` wrote."""
    report = json.loads((directory / "shard.json").read_text(encoding="utf-8"))
    schema = report["schema"]
    cameras = {name: (height, width) for name, (height, width) in schema["cameras"].items()}
    vectors = {key: [(name, unit) for name, unit in numbers] for key, numbers in schema["vectors"].items()}
    parsed = lerobot.Schema(schema["robot"], schema["fps"], cameras, vectors)
    return Shard(directory, report["task"], report["number"], report["tried"], parsed, report["episodes"])


def assemble(root: Path, shards: Sequence[Shard], episodes: int) -> dict[str, int]:
    """Write the LeRobotDataset of the first `episodes` successes of each task.

    Each shard becomes one data file and one video file per camera, without re-encoding.

    Args:
        root: directory to write.
        shards: in order, task after task.
        episodes: successes of each task to use.

    Returns:
        `episodes` and `frames` written.

    Raises:
        EnvError: if tasks differ in robot, cameras, state or action.
    """
    assembly = _Assembly(root, shards[0].schema)
    left = {shard.task: episodes for shard in shards}
    for shard in shards:
        if shard.schema != assembly.schema:
            raise EnvError(f"{shard.task} and {shards[0].task} differ in robot or camera; collect them separately")
        used = shard.episodes[: left[shard.task]]
        left[shard.task] -= len(used)
        if used:
            assembly.add(shard, used)
    return assembly.finish()


class _Assembly:
    """A dataset under construction."""

    def __init__(self, root: Path, schema: lerobot.Schema) -> None:
        self.schema = schema
        self._root = root
        self._files = 0
        self._frames = 0
        self._rows: list[dict[str, Any]] = []
        self._instructions: dict[str, int] = {}
        self._columns: list[dict[str, NDArray[Any]]] = []
        self._images: list[dict[str, lerobot.Statistics]] = []

    def add(self, shard: Shard, used: Sequence[dict[str, Any]]) -> None:
        """Append the first episodes of a shard as the next data and video files."""
        place = lerobot.file_indices(self._files)
        table = pq.read_table(shard.directory / "frames.parquet")
        columns, offset = [], 0
        for episode in used:
            rows = table.slice(offset, episode["length"])
            columns.append(self._episode(rows, episode, place, offset))
            offset += len(rows)
        lerobot.write_data(self._root / lerobot.DATA_PATH.format(**place), self.schema.arrow(), columns)
        for camera in self.schema.cameras:
            video = self._root / lerobot.VIDEO_PATH.format(video_key=lerobot.IMAGES + camera, **place)
            video.parent.mkdir(parents=True, exist_ok=True)
            _link(shard.directory / f"{camera}.mp4", video)
        self._columns += columns
        self._files += 1

    def finish(self) -> dict[str, int]:
        """Write meta/."""
        (self._root / "meta").mkdir(parents=True, exist_ok=True)
        keys = self._columns[0].keys()
        stats = {key: lerobot.statistics(np.concatenate([columns[key] for columns in self._columns])) for key in keys}
        for key in self._images[0]:
            stats[key] = lerobot.combine([images[key] for images in self._images])
        lerobot.write_episodes(self._root, self._rows)
        lerobot.write_tasks(self._root, list(self._instructions))
        lerobot.write_stats(self._root, stats)
        lerobot.write_info(self._root, self.schema, len(self._rows), self._frames, len(self._instructions))
        return {"episodes": len(self._rows), "frames": self._frames}

    def _episode(
        self, rows: pa.Table, episode: dict[str, Any], place: dict[str, int], offset: int
    ) -> dict[str, NDArray[Any]]:
        length, fps = len(rows), self.schema.fps
        instructions = rows["instruction"].to_pylist()
        for instruction in instructions:
            self._instructions.setdefault(instruction, len(self._instructions))
        columns: dict[str, NDArray[Any]] = {key: _matrix(rows[key]) for key in self.schema.vectors}
        tasks = [self._instructions[instruction] for instruction in instructions]
        columns |= lerobot.index_columns(len(self._rows), self._frames, tasks, fps)
        images = {lerobot.IMAGES + camera: _arrays(found) for camera, found in episode["images"].items()}
        row = lerobot.episode_row(columns, images, sorted(set(instructions)), place, offset, fps)
        self._rows.append(row | {"seed": episode["seed"], "variant": episode["variant"]})
        self._images.append(images)
        self._frames += length
        return columns


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn what the operating system says against writing here into a message for the user.

    Raises:
        EnvError: if the body raised OSError.
    """
    try:
        yield
    except OSError as error:
        raise EnvError(f"cannot write the dataset to {directory}: {error}; choose another out or free space") from error


def write_atomically(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    lerobot.write_json(partial, value)
    partial.replace(path)


def _frames(schema: lerobot.Schema, found: Sequence[Demonstration]) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for key, numbers in schema.vectors.items():
        values = np.concatenate([demonstration.vectors[key] for demonstration in found])
        columns[key] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), len(numbers))
    columns["instruction"] = pa.array([each for demonstration in found for each in demonstration.instructions])
    return pa.table(columns)


def _summary(demonstration: Demonstration) -> dict[str, Any]:
    images = {camera: lerobot.as_lists(lerobot.image_statistics(each)) for camera, each in demonstration.images.items()}
    found = {"attempt": demonstration.attempt, "seed": demonstration.seed, "variant": demonstration.variant}
    return found | {"length": len(demonstration), "images": images}


def _arrays(lists: dict[str, list[Any]]) -> lerobot.Statistics:
    return {key: np.array(value) for key, value in lists.items()}


def _matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    rows = column.combine_chunks()
    return rows.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # file systems without hard links
        shutil.copyfile(source, target)
