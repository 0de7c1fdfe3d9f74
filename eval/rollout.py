"""One episode of any environment with any policy; as in SIMPLER, it ends at the time limit and not at success."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla.api import ActionChunk, InputError, Observation, Policy, PolicySpec
from vla.chunking import Chunking

ROUND_TRIP = "round_trip"  # the stage every policy has: what the robot waits for one answer, measured here


class Environment(Protocol):
    """The part of a gymnasium environment that an episode needs.

    Observations are `{"images": {camera: uint8 (H, W, 3)}, "state": float32 (S,)}`; `info` holds `instruction`,
    and after each step `success` and `success_strict`. One that has an attribute `draws` leaves images out while it is
    False.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]: ...

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]: ...


@dataclass(frozen=True)
class Episode:
    """Which episode to run.

    Attributes:
        task: environment name.
        episode_id: index of an official start (`starts="grid"`), or of a fresh one drawn from the seed.
        setting: `visual_matching` or `variant_aggregation`.
        starts: `grid` or `random`.
        run_seed: seed of the whole run.
        variant: visual variant, `base` for the unperturbed scene; paired: its starts are those of every other variant.
        scene: `official`, or `mixed` with the objects of other tasks present.
    """

    task: str
    episode_id: int
    setting: str = "visual_matching"
    starts: str = "grid"
    run_seed: int = 0
    variant: str = "base"
    scene: str = "official"

    @property
    def seed(self) -> int:
        """Depends on what the episode is, never on how many there are or in which order they run."""
        return stable_hash(self.run_seed, self.task, self.setting, self.episode_id)

    @property
    def session(self) -> str:
        """What the policy knows this episode by; policies seed their noise from it, so equal sessions act equally."""
        place = f"{self.task}/{self.setting}/{self.variant}"
        mixed = "" if self.scene == "official" else f"/{self.scene}"
        return f"{place}{mixed}/{self.starts}/{self.episode_id}/{self.run_seed}"

    @property
    def options(self) -> dict[str, Any]:
        """What `reset` needs to choose the start."""
        return {"episode_id": self.episode_id} if self.starts == "grid" else {}


@dataclass
class Rollout:
    """What one episode showed so far; complete after `rollout` returns.

    Attributes:
        instruction: the first of the episode.
        success: the official condition after each control step.
        strict: the strict condition after each control step.
        latency_ms: stage -> milliseconds of each answer of the policy.
    """

    instruction: str = ""
    success: list[bool] = field(default_factory=list)
    strict: list[bool] = field(default_factory=list)
    latency_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def steps(self) -> int:
        return len(self.success)


def stable_hash(*parts: object) -> int:
    """A seed within 0..2**31 - 1 that is the same on every machine, in every process and version."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def rollout(
    environment: Environment,
    policy: Policy,
    episode: Episode,
    chunking: Chunking,
    observers: Sequence[Callable[[Observation], None]] = (),
    into: Rollout | None = None,
) -> Rollout:
    """Run one episode to its time limit.

    Args:
        environment: see `Environment`.
        policy: any policy; told to forget the session first.
        episode: start, seed and session.
        chunking: how chunks become one action per control step.
        observers: called with every observation that exists, including those the policy is not asked about and
            the last, after which nothing is done.
        into: filled step by step, so that a caller keeps what was measured before an exception.

    Returns:
        Successes after each step, and latencies of each answer.
    """
    seen = Rollout() if into is None else into
    raw, info = environment.reset(seed=episode.seed, options=episode.options)
    seen.instruction = info["instruction"]
    policy.reset(episode.session)
    chunking.reset()
    truncated = False
    while True:
        observation = observe(raw, info["instruction"], episode.session, seen.steps)
        for observer in observers:
            observer(observation)
        if truncated:  # the state that decided success was observed too
            return seen
        if chunking.needs_chunk(seen.steps):
            chunking.add(seen.steps, ask(policy, observation, seen.latency_ms))
        action = chunking.action(seen.steps)
        with drawing(environment, bool(observers) or chunking.needs_chunk(seen.steps + 1)):
            raw, _, _, truncated, info = environment.step(action)
        seen.success.append(bool(info["success"]))
        seen.strict.append(bool(info["success_strict"]))


@contextmanager
def drawing(environment: Any, wanted: bool) -> Iterator[None]:
    """Spare an environment with an attribute `draws` the images that nobody looks at: they take most of a step."""
    world = getattr(environment, "unwrapped", environment)
    if wanted or not getattr(world, "draws", False):
        yield
        return
    world.draws = False
    try:
        yield
    finally:
        world.draws = True


def observe(raw: Mapping[str, Any], instruction: str, session: str, step: int) -> Observation:
    """Turn what the environment returned into what a policy reads."""
    return Observation(
        images=raw["images"],
        instruction=instruction,
        state=raw["state"],
        session=session,
        step=step,
        time=time.monotonic(),
    )


def ask(policy: Policy, observation: Observation, latency_ms: dict[str, list[float]]) -> ActionChunk:
    """Ask the policy once and note how long each stage took."""
    start = time.perf_counter()
    chunk = policy.infer(observation)
    stages = {**chunk.timing, ROUND_TRIP: 1e3 * (time.perf_counter() - start)}
    for stage, milliseconds in stages.items():
        latency_ms[stage].append(milliseconds)
    return chunk


def check_fit(spec: PolicySpec, state: Sequence[Any], actions: Sequence[Any], period: float, execute: int) -> None:
    """Refuse a policy whose state, actions or control period are not those of the robot, before the first step.

    Args:
        spec: what the policy needs and gives; a policy that reads no state fits every robot.
        state: the robot's state quantities.
        actions: the robot's action quantities.
        period: [s] per control step of the robot.
        execute: actions used of each chunk.

    Raises:
        InputError: naming what differs.
    """
    name = f"policy {spec.model}"
    if spec.state and tuple(spec.state) != tuple(state):
        raise InputError(f"{name} reads the state {_units(spec.state)}; the robot has {_units(state)}")
    if tuple(spec.actions) != tuple(actions):
        raise InputError(f"{name} gives the actions {_units(spec.actions)}; the robot takes {_units(actions)}")
    if abs(spec.period - period) > 1e-6:
        raise InputError(f"{name} acts every {spec.period} s; the robot every {period} s")
    if not 1 <= execute <= spec.horizon:
        raise InputError(
            f"execute, and ensemble, must lie within 1..{spec.horizon}, the horizon of {name}; got {execute}"
        )


def _units(quantities: Sequence[Any]) -> str:
    return ", ".join(f"{quantity.name} [{quantity.unit}]" for quantity in quantities)
