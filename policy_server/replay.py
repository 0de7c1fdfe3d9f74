"""A policy that answers what was recorded: one episode of a LeRobotDataset, served back step by step."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.lerobot_dataset import ACTION, IMAGES, STATE
from policy_server.checks import WireError
from policy_server.messages import read_welcome
from policy_server.recordings import CHUNK, POLICY, STEP
from policy_server.wire import Message
from vla.api import ActionChunk, Camera, InputError, Observation, PolicySpec
from vla.training.lerobot_files import Directory


class ReplayPolicy:
    """Answers the actions of an episode by `Observation.step`, whatever the robot sees.

    At a step that was recorded by `cadence-serve record=` it answers the very chunk that was answered then, bit for
    bit. Between two of them it answers what a robot executed that followed the newest chunk; of other datasets, whose
    frames are the steps, one action.

    Args:
        dataset: LeRobotDataset v3.0 directory.
        episode: number, from 0.

    Raises:
        InputError: if it is no such dataset, is damaged, or has no such episode.
    """

    def __init__(self, dataset: str | Path, episode: int = 0) -> None:
        files = Directory.open(Path(dataset))
        whole = files.episodes([])
        if not 0 <= episode < len(whole.lengths):
            raise InputError(f"{dataset} has episodes 0 to {len(whole.lengths) - 1}, got episode={episode}")
        recorded = {CHUNK, STEP} <= set(files.features)
        table = files.frames(whole, [ACTION, CHUNK, STEP] if recorded else [ACTION])
        end = int(whole.lengths[: episode + 1].sum())
        rows = slice(end - int(whole.lengths[episode]), end)
        self.spec = _spec(files)
        self._name = f"episode {episode} of {dataset}"
        shape = (-1, self.spec.horizon, len(self.spec.actions))
        self._chunks: NDArray[np.float32] = table[CHUNK if recorded else ACTION][rows].reshape(shape)  # (frames, H, A)
        frames = len(self._chunks)
        self._steps = table[STEP][rows, 0].astype(np.int64) if recorded else np.arange(frames)  # (frames,)

    def infer(self, observation: Observation) -> ActionChunk:
        """What was answered at this step.

        Raises:
            InputError: if the observation does not fit `spec`, or nothing was recorded for its step.
        """
        self.spec.check(observation)
        steps = observation.step + np.arange(self.spec.horizon)  # (H,)
        frames = np.searchsorted(self._steps, steps, side="right") - 1  # newest answer at or before each step
        ages = steps - self._steps[frames]
        if frames[0] < 0 or ages[0] >= self.spec.horizon:
            known = f"{self._steps[0]} to {self._steps[-1] + self.spec.horizon - 1}"
            raise InputError(f"{self._name} has actions for steps {known}, got step {observation.step}")
        if ages[0] == 0:
            return ActionChunk(self._chunks[frames[0]].copy(), self.spec.period)
        return ActionChunk(self._chunks[frames, np.minimum(ages, self.spec.horizon - 1)], self.spec.period)

    def reset(self, session: str) -> None:
        """Nothing is remembered."""


def _spec(files: Directory) -> PolicySpec:
    """Of the policy that was recorded; of a dataset from elsewhere, what its features say."""
    path = files.root / POLICY
    if not path.is_file():
        return _described(files)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        spec, _ = read_welcome(Message("hello", 1, body=body))
    except (OSError, ValueError, WireError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    return replace(spec, model=f"replay of {spec.model}", inpaints=False)


def _described(files: Directory) -> PolicySpec:
    shapes = {key: files.features[key]["shape"] for key in files.cameras()}
    return PolicySpec(
        cameras=tuple(Camera(key.removeprefix(IMAGES), shape[0], shape[1]) for key, shape in shapes.items()),
        state=files.quantities(STATE) if STATE in files.features else (),
        actions=files.quantities(ACTION),
        horizon=1,
        period=1 / files.fps,
        model=f"replay of {files.root.name}",
    )
