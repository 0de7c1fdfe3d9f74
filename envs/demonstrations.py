"""One expert demonstration: the expert acts, noise disturbs what is executed, the label stays clean (DART, 2017).

Noise makes the data show states next to the expert's path together with the way back, which is what a cloned policy
needs when it drifts. Only episodes that end in a strict success are demonstrations.
"""

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError
from envs.lerobot_dataset import ACTION, KEYPOINTS, STATE

FIRST_SEED, SEEDS_PER_RUN = 100_000, 1_000_000


class Expert(Protocol):
    """A scripted solution of one task, a function of the measured state."""

    @property
    def done(self) -> bool: ...

    def reset(self) -> None: ...

    def action(self) -> NDArray[np.float32]: ...


Frame = tuple[dict[str, Any], NDArray[np.float32], NDArray[np.float32], str]


@dataclass(frozen=True)
class Noise:
    """Disturbance of executed actions, scaled for every episode by a factor drawn from U(0, 1).

    Args:
        bias_probability: chance at each step that a lasting bias starts.
        bias_end_probability: chance at each later step that it ends.
        bias_position: standard deviation of the bias [m].
        bias_rotation: standard deviation of the bias about the vertical [rad]; half of it about the other axes.
        white_position: standard deviation of independent noise [m].
        white_rotation: standard deviation of independent noise [rad].
        clean_every: one episode in so many has no noise; 1 for none anywhere.
    """

    bias_probability: float = 0.15
    bias_end_probability: float = 0.4
    bias_position: float = 0.012
    bias_rotation: float = 0.06
    white_position: float = 0.003
    white_rotation: float = 0.01
    clean_every: int = 5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name == "clean_every":
                whole_number("noise.clean_every", value, least=1)
            elif not isinstance(value, int | float) or not 0 <= value <= 1:
                raise EnvError(f"noise.{name} must be a number in [0, 1], got {value!r}")


class Disturbance:
    """The noise of one episode.

    Args:
        noise: its distribution.
        attempt: number of the episode; decides whether it is clean.
        rng: source of the draws.
    """

    def __init__(self, noise: Noise, attempt: int, rng: np.random.Generator) -> None:
        self._noise = noise
        self._rng = rng
        scale = rng.uniform()
        self.scale = 0.0 if attempt % noise.clean_every == 0 else scale
        tilt, turn = noise.bias_rotation / 2, noise.bias_rotation
        self._bias_sigma = np.array([noise.bias_position] * 3 + [tilt, tilt, turn])
        self._white_sigma = np.array([noise.white_position] * 3 + [noise.white_rotation] * 3)
        self._bias = np.zeros(6)

    def __call__(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """The action to execute: motion disturbed, gripper as commanded."""
        if self._bias.any():
            if self._rng.uniform() < self._noise.bias_end_probability:
                self._bias = np.zeros(6)
        elif self._rng.uniform() < self._noise.bias_probability:
            self._bias = self._rng.normal(size=6) * self._bias_sigma
        disturbed = action.copy()
        disturbed[:6] += self.scale * (self._bias + self._rng.normal(size=6) * self._white_sigma)
        return disturbed


@dataclass(frozen=True)
class Demonstration:
    """One successful episode; row t is what was seen before action t.

    Attributes:
        attempt: number of the episode among all tried.
        seed: seed of the start.
        variant: what the scene looked like.
        images: camera -> (steps, height, width, 3) uint8 RGB.
        vectors: feature -> (steps, dim) float32: state, the expert's clean action, privileged key points.
        instructions: (steps) what the robot was told.
    """

    attempt: int
    seed: int
    variant: str
    images: Mapping[str, NDArray[np.uint8]]
    vectors: Mapping[str, NDArray[np.float32]]
    instructions: list[str]

    def __len__(self) -> int:
        return len(self.instructions)


def start_seed(seed: int, attempt: int) -> int:
    """Seed of an attempt's start: from 100000 on, so that no small seed that a person types is ever trained on."""
    return FIRST_SEED + SEEDS_PER_RUN * seed + attempt


def whole_number(name: str, value: object, least: int) -> None:
    """Check an option.

    Raises:
        EnvError: if it is not a whole number of at least `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise EnvError(f"{name} must be a whole number of at least {least}, got {value!r}")


def demonstrate(
    env: gymnasium.Env[Any, Any],
    expert: Expert,
    noise: Noise,
    task: str,
    seed: int,
    attempt: int,
    hold_steps: int,
    options: dict[str, Any] | None = None,
) -> Demonstration | None:
    """Let the expert solve one start; `hold_steps` after it is done the episode ends.

    Args:
        env: environment with images.
        expert: expert of this environment.
        noise: disturbance of the executed actions.
        task: the environment's name; part of the seed.
        seed: seed of the run.
        attempt: number of the episode.
        hold_steps: steps at rest recorded at the end, so that a policy learns to stop.
        options: for `env.reset`.

    Returns:
        The demonstration, or None if it did not end in a strict success.
    """
    reset_seed = start_seed(seed, attempt)
    disturb = Disturbance(noise, attempt, np.random.default_rng([reset_seed, zlib.crc32(task.encode())]))
    observation, info = env.reset(seed=reset_seed, options=options)
    expert.reset()
    world: Any = env.unwrapped
    frames: list[Frame] = []
    held = 0
    for _ in range(world.max_episode_steps):
        label = expert.action()
        frames.append((observation, label, world.keypoints(), info["instruction"]))
        held = held + 1 if expert.done else 0
        observation, _, _, _, info = env.step(label if expert.done else disturb(label))
        if held == hold_steps:
            break
    if not info["success_strict"]:
        return None
    return _stack(attempt, reset_seed, info["variant"], frames)


def _stack(attempt: int, seed: int, variant: str, frames: list[Frame]) -> Demonstration:
    observations = [frame[0] for frame in frames]
    images = {name: np.stack([each["images"][name] for each in observations]) for name in observations[0]["images"]}
    vectors = {
        STATE: np.stack([each["state"] for each in observations]).astype(np.float32),
        ACTION: np.stack([frame[1] for frame in frames]).astype(np.float32),
        KEYPOINTS: np.stack([frame[2] for frame in frames]).astype(np.float32),
    }
    return Demonstration(attempt, seed, variant, images, vectors, [frame[3] for frame in frames])
