"""A LeRobotDataset that grows by one episode at a time and is whole after each of them.

Every episode has its own data file, videos and file of meta/episodes. They are written aside and moved into place
together, `meta/info.json` last; what a kill left beside a whole dataset is removed when it is opened again.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from envs import lerobot_dataset as lerobot
from policy_server.messages import welcome
from vla.api import InputError, PolicySpec

INFO, STATS, TASKS, POLICY = "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/policy.json"
STAGING, LOCK = ".recording", ".lock"
CHUNK, STEP = "action_chunk", "step"


def schema(spec: PolicySpec, sizes: Mapping[str, tuple[int, int]]) -> lerobot.Schema:
    """What a frame of a recording of this policy holds.

    Args:
        spec: of the policy.
        sizes: camera -> (height, width) [px] of the images that came.

    Raises:
        InputError: if the policy does not act a whole number of times a second.
    """
    fps = round(1 / spec.period)
    if fps < 1 or abs(fps * spec.period - 1) > 0.01:
        raise InputError(f"a LeRobotDataset has whole frames a second; the policy acts every {spec.period} s")
    actions = [(each.name, each.unit) for each in spec.actions]
    chunk = [(f"{name}_{row}", unit) for row in range(spec.horizon) for name, unit in actions]
    states = {lerobot.STATE: [(each.name, each.unit) for each in spec.state]} if spec.state else {}
    vectors = {**states, lerobot.ACTION: actions, CHUNK: chunk, STEP: [(STEP, "1")]}
    return lerobot.Schema(spec.model, fps, dict(sizes), vectors)


def held(root: Path) -> int:
    """Hold a folder for one writer, until the descriptor that this returns is closed.

    Raises:
        InputError: if it cannot be written, is in use, or holds something else than a dataset.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"record={root} cannot be written: {error.strerror}; choose another folder") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (root / INFO).exists() and any(path.name not in (LOCK, STAGING) for path in root.iterdir()):
            raise InputError(f"record={root} is neither empty nor a dataset; choose another folder")
    except BlockingIOError as error:
        os.close(lock)
        raise InputError(f"another server records to {root}; choose another folder") from error
    except BaseException:
        os.close(lock)
        raise
    return lock


@dataclass(frozen=True)
class Recorded:
    """One episode, its videos finished.

    Attributes:
        vectors: feature -> (frames, dim) float32.
        instructions: of every frame.
        videos: camera -> file; it is moved into the dataset.
        images: camera -> statistics.
        session: whose it was.
    """

    vectors: Mapping[str, NDArray[np.float32]]
    instructions: Sequence[str]
    videos: Mapping[str, Path]
    images: Mapping[str, lerobot.Statistics]
    session: str


class Recordings:
    """A growing dataset, held by one writer until `close`.

    Args:
        root: a new or empty folder, or a dataset that an earlier recording of the same policy made.
        spec: of the policy that is recorded.

    Attributes:
        schema: what a frame holds; None until the size of the images is known.
        episodes: finished ones.
        staging: folder for unfinished files.

    Raises:
        InputError: if the folder cannot be written, is in use, holds something else, or records another kind of policy.
    """

    def __init__(self, root: Path, spec: PolicySpec) -> None:
        self.root, self._spec = root, spec
        self.staging = root / STAGING
        self.schema: lerobot.Schema | None = None
        self.episodes = self._frames = 0
        self._tasks: dict[str, int] = {}
        self._stats: dict[str, lerobot.Statistics] = {}
        schema(spec, {})  # refuses a policy that cannot be recorded, before it is served
        self._lock = held(root)
        try:
            if (root / INFO).exists():
                self._resume()
            shutil.rmtree(self.staging, ignore_errors=True)
            self.staging.mkdir()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another writer have it."""
        shutil.rmtree(self.staging, ignore_errors=True)
        os.close(self._lock)

    def accepts(self, sizes: Mapping[str, tuple[int, int]]) -> bool:
        """Whether images of these sizes, camera -> (height, width) [px], can be recorded; the first ones decide."""
        if self.schema is None:
            self.schema = schema(self._spec, sizes)
        return dict(self.schema.cameras) == dict(sizes)

    def add(self, episode: Recorded) -> None:
        """Add a finished episode; afterwards the dataset is whole, with it.

        Raises:
            OSError: if it cannot be written; the dataset is whole without it.
        """
        assert self.schema is not None, "an episode has images, and their sizes were accepted"
        for instruction in episode.instructions:
            self._tasks.setdefault(instruction, len(self._tasks))
        tasks = [self._tasks[instruction] for instruction in episode.instructions]
        columns: dict[str, NDArray[Any]] = dict(episode.vectors)
        columns |= lerobot.index_columns(self.episodes, self._frames, tasks, self.schema.fps)
        self._publish(episode, columns, self.schema)
        self.episodes += 1
        self._frames += len(tasks)

    def _publish(self, episode: Recorded, columns: Mapping[str, NDArray[Any]], made: lerobot.Schema) -> None:
        """Write everything aside, then move it into place, the file that counts the episodes last."""
        aside = self.staging / f"episode-{self.episodes}"
        place = lerobot.file_indices(self.episodes)
        images = {lerobot.IMAGES + camera: found for camera, found in episode.images.items()}
        moves = [lerobot.DATA_PATH.format(**place)]
        for camera, video in episode.videos.items():
            moves.append(lerobot.VIDEO_PATH.format(video_key=lerobot.IMAGES + camera, **place))
            (aside / moves[-1]).parent.mkdir(parents=True, exist_ok=True)
            video.replace(aside / moves[-1])
        lerobot.write_data(aside / moves[0], made.arrow(), [columns])
        row = lerobot.episode_row(columns, images, sorted(set(episode.instructions)), place, 0, made.fps, self.episodes)
        lerobot.write_episodes(aside, [row | {"session": episode.session}], self.episodes)
        found = {key: lerobot.statistics(values) for key, values in columns.items()} | images
        stats = {key: lerobot.combine([self._stats[key], new]) if self._stats else new for key, new in found.items()}
        lerobot.write_tasks(aside, list(self._tasks))
        lerobot.write_stats(aside, stats)
        lerobot.write_json(aside / POLICY, welcome(1, self._spec).body)
        frames = self._frames + len(columns["index"])
        lerobot.write_info(aside, made, self.episodes + 1, frames, len(self._tasks))
        for name in (*moves, TASKS, STATS, POLICY, lerobot.EPISODES_PATH.format(**place), INFO):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (aside / name).replace(self.root / name)
        shutil.rmtree(aside)
        self._stats = stats

    def _resume(self) -> None:
        """Continue the dataset that is there."""
        try:
            info = json.loads((self.root / INFO).read_text(encoding="utf-8"))
            stats = json.loads((self.root / STATS).read_text(encoding="utf-8"))
            tasks = pq.ParquetFile(self.root / TASKS).read()
            shapes = {key: each["shape"] for key, each in info["features"].items() if key.startswith(lerobot.IMAGES)}
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"record={self.root} holds a damaged dataset: {error}; choose another folder") from error
        sizes = {key.removeprefix(lerobot.IMAGES): (shape[0], shape[1]) for key, shape in shapes.items()}
        made = schema(self._spec, sizes)
        if (info["fps"], info["features"]) != (made.fps, made.features()):
            raise InputError(f"record={self.root} holds recordings of another kind of policy; choose another folder")
        self.schema, self.episodes, self._frames = made, info["total_episodes"], info["total_frames"]
        self._tasks = dict(zip(tasks["task"].to_pylist(), tasks["task_index"].to_pylist(), strict=True))
        self._stats = {key: {name: np.array(v) for name, v in each.items()} for key, each in stats.items()}
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """Remove what a kill left of an episode that info.json does not count."""
        place = lerobot.file_indices(self.episodes)
        patterns = [lerobot.VIDEO_PATH.format(video_key="*", **place)]
        patterns += [path.format(**place) for path in (lerobot.DATA_PATH, lerobot.EPISODES_PATH)]
        for pattern in patterns:
            for path in self.root.glob(pattern):
                path.unlink()
