"""Reads demonstrations from a LeRobotDataset v3.0 directory, every image decoded once into a memory-mapped cache."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError, Observation, Quantity
from vla.training.lerobot_files import UNNAMED, Directory
from vla.training.video_cache import open_images

STATE, ACTION, KEYPOINTS = "observation.state", "action", "observation.environment_state"
IMAGES = "observation.images."
CACHE = ".cache"  # directory in a dataset's for what is made of it once
MOTIONS = ("dx", "dy", "dz", "rotation_x", "rotation_y", "rotation_z")  # relative to where the robot is
_IMAGES_IN_FINGERPRINT = 64


@dataclass(frozen=True)
class Statistics:
    """Of each number of a state or action over frames; every array is (dim,) float32."""

    q01: NDArray[np.float32]
    q99: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    min: NDArray[np.float32]
    max: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Statistics":
        """Statistics of (frames, dim)."""
        table = values.astype(np.float64)
        low, high = np.quantile(table, [0.01, 0.99], axis=0)
        found = (low, high, table.mean(0), table.std(0), table.min(0), table.max(0))
        return cls(*(each.astype(np.float32) for each in found))


@dataclass(frozen=True)
class Demonstrations:
    """Frames of all episodes, one after another; row i is what was seen and what the expert then did.

    Attributes:
        views: camera -> (frames, height, width, 3) uint8 RGB, memory-mapped, read-only.
        states: (frames, S) float32.
        actions: (frames, A) float32, physical units.
        keypoints: (frames, K) float32 privileged labels; K = 0 if the dataset has none.
        episode_index: (frames,) which episode a frame belongs to, counted from 0.
        episode_ends: (episodes,) the frame after the last one of each episode.
        instructions: texts.
        task_index: (frames,) which instruction.
        state_quantities, action_quantities, keypoint_quantities: names and units of the columns.
        period: [s] between frames.
        horizon: rows of a chunk.
        robot: its name.
        answers: (frames, horizon, A) float32, physical units: chunks to learn in place of `actions`; None: those.
    """

    views: Mapping[str, NDArray[np.uint8]]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    episode_index: NDArray[np.int64]
    episode_ends: NDArray[np.int64]
    instructions: list[str]
    task_index: NDArray[np.int64]
    state_quantities: tuple[Quantity, ...]
    action_quantities: tuple[Quantity, ...]
    keypoint_quantities: tuple[Quantity, ...]
    period: float
    horizon: int
    robot: str = UNNAMED
    answers: NDArray[np.float32] | None = None

    @classmethod
    def open(
        cls, directory: str | Path, cameras: Sequence[str] | None, horizon: int, cache_dir: str | Path | None = None
    ) -> "Demonstrations":
        """Open a dataset; the first time, decode its videos.

        Args:
            directory: LeRobotDataset v3.0 directory.
            cameras: names, without the `observation.images.` before them; None: the only one there is.
            horizon: rows of a chunk.
            cache_dir: where decoded images are kept, by default `.cache` in the directory.

        Raises:
            InputError: naming the file and the field that is missing, damaged, empty, not finite or inconsistent.
        """
        files = Directory.open(Path(directory))
        cameras = _only_camera(files) if cameras is None else cameras
        if horizon < 1 or not cameras:
            raise InputError(f"needs a horizon of at least 1 and a camera; got {horizon} and {list(cameras)}")
        features = {camera: files.video(IMAGES + camera) for camera in cameras}
        episodes = files.episodes(list(features.values()))
        vectors = [STATE, ACTION, *([KEYPOINTS] if KEYPOINTS in files.features else [])]
        table = files.frames(episodes, vectors)
        cache = Path(cache_dir) if cache_dir is not None else files.root / CACHE
        views = {name: open_images(files, feature, episodes, cache) for name, feature in features.items()}
        return cls(
            views=views,
            states=table[STATE],
            actions=table[ACTION],
            keypoints=table.get(KEYPOINTS, np.zeros((len(table[ACTION]), 0), np.float32)),
            episode_index=np.repeat(np.arange(len(episodes.lengths)), episodes.lengths),
            episode_ends=np.cumsum(episodes.lengths),
            instructions=files.instructions(),
            task_index=table["task_index"],
            state_quantities=files.quantities(STATE),
            action_quantities=files.quantities(ACTION),
            keypoint_quantities=files.quantities(KEYPOINTS) if KEYPOINTS in table else (),
            period=1 / files.fps,
            horizon=horizon,
            robot=files.robot,
        )

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def images(self) -> NDArray[np.uint8]:
        """(frames, height, width, 3) of the only camera.

        Raises:
            InputError: if several cameras were opened; then choose one of `views`.
        """
        if len(self.views) != 1:
            raise InputError(f"this dataset was opened with cameras {list(self.views)}; choose one of views")
        return next(iter(self.views.values()))

    @property
    def state_statistics(self) -> Statistics:
        return Statistics.of(self.states)

    @property
    def action_statistics(self) -> Statistics:
        return Statistics.of(self.actions)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the frames; of many images, 64 spread over all are read."""
        digest = hashlib.sha256(repr(self.instructions).encode())
        for table in (self.states, self.actions, self.keypoints, self.episode_ends, self.task_index):
            digest.update(repr(table.shape).encode() + np.ascontiguousarray(table).tobytes())
        for name, view in self.views.items():
            digest.update(name.encode())
            for row in range(0, len(view), -(-len(view) // _IMAGES_IN_FINGERPRINT)):
                digest.update(np.ascontiguousarray(view[row]).tobytes())
        return digest.hexdigest()[:16]

    def observation(self, row: int, with_state: bool) -> Observation:
        """A frame as the robot saw it, each episode a session of its own.

        Args:
            row: of the frame.
            with_state: whether the policy that is shown it reads a state.
        """
        episode = int(self.episode_index[row])
        return Observation(
            {name: np.array(view[row]) for name, view in self.views.items()},
            self.instructions[self.task_index[row]],
            np.array(self.states[row]) if with_state else None,
            session=f"episode-{episode}",
            step=int(row) - (int(self.episode_ends[episode - 1]) if episode else 0),
        )

    def chunk(self, frames: NDArray[np.integer]) -> NDArray[np.float32]:
        """What the expert did from each frame on, or `answers`; after the episode's end the expert rests.

        Resting is no motion, and everything that is not a motion, such as the gripper, as it was commanded last: what
        was picked up stays in the hand.

        Args:
            frames: (B,) frame indices.

        Returns:
            (B, horizon, A); row 0 is the action executed after the frame was seen.
        """
        if self.answers is not None:
            return self.answers[frames]
        rows = np.asarray(frames)[:, None] + np.arange(self.horizon)  # (B, horizon)
        ends = self.episode_ends[self.episode_index[frames]][:, None]
        moves = np.array([quantity.name in MOTIONS for quantity in self.action_quantities])
        known = self.actions[np.minimum(rows, ends - 1)]  # (B, horizon, A), the last action repeated
        return np.where((rows < ends)[..., None] | ~moves, known, np.float32(0))

    def split(self, validation_fraction: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frames for training and for validation; whole episodes, so that no frame's neighbour is on the other side.

        Args:
            validation_fraction: of the episodes, in [0, 1); at least one episode stays on each side unless it is 0.
            seed: chooses the episodes.

        Returns:
            (training frames, validation frames), ascending.

        Raises:
            InputError: if the fraction is out of range, or there are too few episodes to split.
        """
        episodes = len(self.episode_ends)
        if not 0 <= validation_fraction < 1 or (validation_fraction > 0 and episodes < 2):
            raise InputError(f"cannot hold out {validation_fraction} of {episodes} episodes; give a fraction in [0, 1)")
        held_out = int(np.clip(np.ceil(validation_fraction * episodes), 0, episodes - 1))
        chosen = np.random.default_rng(seed).permutation(episodes)[:held_out]
        validation = np.isin(self.episode_index, chosen)
        return np.flatnonzero(~validation), np.flatnonzero(validation)


def _only_camera(files: Directory) -> list[str]:
    names = [feature.removeprefix(IMAGES) for feature in files.cameras()]
    if len(names) != 1:
        raise InputError(f"{files.root} has cameras {names}; name those to use, in order, with cameras=[…]")
    return names
