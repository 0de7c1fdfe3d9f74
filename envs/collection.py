"""Collects demonstrations on many cores into one LeRobotDataset directory.

Attempts are cut into shards of fixed size; a shard depends on nothing but the request and appears complete or not at
all. So the dataset is the same for every number of workers, and an interrupted run continues with the shards it lacks.
The dataset is the first `episodes` successes of each task, in order of attempt.
"""

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from envs.demonstrations import Expert, Noise, demonstrate, whole_number
from envs.errors import EnvError
from envs.lerobot_dataset import ACTION, KEYPOINTS, STATE, Schema
from envs.shards import Shard, assemble, read_shard, write_atomically, write_shard, writing
from envs.staging import MIXED, OFFICIAL, Staging
from envs.variant import VISUAL_MATCHING
from envs.variants import BASE

STAGING = ".collect"
FINISHED = "meta/collection.json"
WORKER_ENVIRONMENT = {"LP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
HOPELESS = 200  # attempts without a single success after which collecting stops

World = tuple[Any, Expert]
MakeWorld = Callable[["Request", str, str], World]  # what to collect, task, variant -> environment and its expert
OnShard = Callable[[Shard, bool], None]


@dataclass(frozen=True)
class Request:
    """What to collect.

    Args:
        tasks: environment names.
        episodes: successes to keep of each task.
        seed: seed of the run; different seeds share no start.
        noise: disturbance of the executed actions.
        hold_steps: steps at rest at the end of an episode.
        shard: attempts in one shard.
        setting: `visual_matching` or `variant_aggregation`.
        variants: what the scenes look like, shard after shard in turn; None for SIMPLER's variants of task and setting.
        scene: `official`, or `mixed`, where every attempt asks for one of the goals that are possible.
        robot_assets: checkout of MuJoCo Menagerie whose meshes replace our own robots.
        learner: who acts for a part of each episode while the expert labels; "" for nobody.

    Raises:
        EnvError: if a number is out of range or a task is named twice.
    """

    tasks: tuple[str, ...]
    episodes: int
    seed: int = 0
    noise: Noise = field(default_factory=Noise)
    hold_steps: int = 3
    shard: int = 16
    setting: str = VISUAL_MATCHING
    variants: tuple[str, ...] | None = (BASE,)
    scene: str = OFFICIAL
    robot_assets: str | None = None
    learner: str = ""

    def __post_init__(self) -> None:
        for name in ("episodes", "hold_steps", "shard"):
            whole_number(name, getattr(self, name), least=1)
        whole_number("seed", self.seed, least=0)
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise EnvError(f"tasks must name at least one task, each once; got {list(self.tasks)}")
        if self.variants is not None and not self.variants:
            raise EnvError("variants must name at least one variant, or be null for SIMPLER's")
        for variant in self.variants or (BASE,):
            Staging(self.setting, variant, self.scene)

    def identity(self) -> dict[str, Any]:
        """What shards depend on; how many episodes of which tasks are wanted is not part of it."""
        return {key: value for key, value in asdict(self).items() if key not in ("tasks", "episodes")}


def make_world(request: Request, task: str, variant: str) -> World:
    """The task's environment with images, and its expert."""
    import envs

    env = envs.make(
        task, setting=request.setting, variant=variant, scene=request.scene, robot_assets=request.robot_assets
    )
    from envs import experts  # after make, which sees that mujoco finds an OpenGL back end

    return env, experts.make(env)


def suite(request: Request, task: str) -> tuple[str, ...]:
    """The variants of a task that are collected, in turn."""
    if request.variants is not None:
        return request.variants
    from envs import tasks, variants

    return tuple(variant.name for variant in variants.suite(tasks.find(task), request.setting))


def collect(
    request: Request,
    out: Path,
    workers: int = 1,
    on_shard: OnShard = lambda shard, fresh: None,
    make: MakeWorld = make_world,
) -> dict[str, Any]:
    """Write the dataset, continuing what an interrupted run with the same request left in `out`.

    Args:
        request: what to collect.
        out: dataset directory; new, empty, or left by an interrupted run.
        workers: processes.
        on_shard: called for each shard, with False if an earlier run had finished it.
        make: builds environment and expert; runs in the workers, so it must be importable.

    Returns:
        What `meta/collection.json` holds: request, attempts tried and kept of each task, episodes, frames.

    Raises:
        EnvError: unknown task, no OpenGL, `out` not usable, disk full, or `out` was begun with another request.
    """
    whole_number("workers", workers, least=1)
    with writing(out):
        complete = _open(request, out)
    if complete:
        return complete
    shards = _run(request, out, workers, on_shard, make)
    with writing(out):
        return _publish(request, out, shards)


def _open(request: Request, out: Path) -> dict[str, Any] | None:
    """Create or check `out`; the contents of `FINISHED` if the dataset is complete."""
    out.mkdir(parents=True, exist_ok=True)
    if (out / FINISHED).exists():
        summary = json.loads((out / FINISHED).read_text(encoding="utf-8"))
        if summary["request"] != _plain(asdict(request)):
            raise EnvError(f"{out} already holds a complete dataset of {summary['request']}; choose another out")
        shutil.rmtree(out / STAGING, ignore_errors=True)
        return summary
    begun = out / STAGING / "request.json"
    if not begun.exists():
        if any(path.name != STAGING for path in out.iterdir()):
            raise EnvError(f"{out} is neither empty nor an interrupted collection; choose an empty or new directory")
        begun.parent.mkdir(exist_ok=True)
        write_atomically(begun, request.identity())
    had = json.loads(begun.read_text(encoding="utf-8"))
    if had != _plain(request.identity()):
        raise EnvError(f"{out} was begun with {had}; continue with the same, or choose another out")
    return None


def _publish(request: Request, out: Path, shards: list[Shard]) -> dict[str, Any]:
    """Build the dataset beside the shards and move it into place, the file that says it is complete last."""
    final = out / STAGING / "final"
    shutil.rmtree(final, ignore_errors=True)
    counts = assemble(final, shards, request.episodes)
    for name in ("data", "videos", "meta"):
        shutil.rmtree(out / name, ignore_errors=True)
        (final / name).rename(out / name)
    summary = {"request": _plain(asdict(request)), "tried": {}, "kept": {}, **counts}
    for task in request.tasks:
        mine = [shard for shard in shards if shard.task == task]
        summary["tried"][task] = sum(shard.tried for shard in mine)
        summary["kept"][task] = sum(len(shard.episodes) for shard in mine)
    write_atomically(out / FINISHED, summary)
    shutil.rmtree(out / STAGING)
    return summary


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value))


def _run(request: Request, out: Path, workers: int, on_shard: OnShard, make: MakeWorld) -> list[Shard]:
    for key, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(make,)) as pool:

        def submit(task: str, number: int) -> Future[tuple[Shard, bool]]:
            return pool.submit(_run_shard, request, out, task, number)

        return [shard for task in request.tasks for shard in _run_task(submit, workers, request, task, on_shard)]


def _run_task(
    submit: Callable[[str, int], Future[tuple[Shard, bool]]],
    workers: int,
    request: Request,
    task: str,
    on_shard: OnShard,
) -> list[Shard]:
    """Shards 0, 1, 2, … of a task until they hold enough successes."""
    finished: dict[int, Shard] = {}
    running: dict[Future[tuple[Shard, bool]], int] = {}
    while True:
        kept = sum(len(shard.episodes) for shard in finished.values())
        while len(running) < workers and kept + len(running) * request.shard < request.episodes:
            number = len(finished) + len(running)
            running[submit(task, number)] = number
        if not running:
            return [finished[number] for number in sorted(finished)]
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            shard, fresh = future.result()
            finished[running.pop(future)] = shard
            on_shard(shard, fresh)
        tried = sum(shard.tried for shard in finished.values())
        if tried >= HOPELESS and not any(shard.episodes for shard in finished.values()):
            raise EnvError(f"the expert solved none of {tried} starts of {task}; there is nothing to collect")


class _Worker:
    """What one process keeps between shards: the world it used last."""

    make: MakeWorld
    stage: tuple[str, str] | None = None
    world: World

    @classmethod
    def open(cls, request: Request, task: str, variant: str) -> World:
        if cls.stage != (task, variant):
            if cls.stage is not None:
                cls.world[0].close()
            try:
                cls.world, cls.stage = cls.make(request, task, variant), (task, variant)
            except EnvError as error:
                raise EnvError(str(error)) from None  # the plain class, which survives the way to the parent
        return cls.world


def _start_worker(make: MakeWorld) -> None:
    """Let the parent decide when to stop: ignore its Ctrl-C, but never outlive it."""
    _Worker.make = staticmethod(make)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _run_shard(request: Request, out: Path, task: str, number: int) -> tuple[Shard, bool]:
    directory = out / STAGING / f"{task}-{number:05d}"
    fresh = not directory.exists()
    if fresh:
        chosen = suite(request, task)
        env, expert = _Worker.open(request, task, chosen[number % len(chosen)])
        options = {"goal": "any"} if request.scene == MIXED else {}
        tries = (
            demonstrate(env, expert, request.noise, task, request.seed, attempt, request.hold_steps, options)
            for attempt in range(number * request.shard, (number + 1) * request.shard)
        )
        found = [demonstration for demonstration in tries if demonstration is not None]
        with writing(out):
            write_shard(directory, task, number, request.shard, _schema(env.unwrapped), found)
    return read_shard(directory), fresh


def _schema(world: Any) -> Schema:
    height, width = world.observation_space["images"][world.camera_name].shape[:2]
    keypoint_units = ["m" if name[-2:] in ("_x", "_y", "_z") else "1" for name in world.keypoint_names]
    return Schema(
        robot=world.robot.name,
        fps=round(1 / world.control_period),
        cameras={world.camera_name: (height, width)},
        vectors={
            STATE: list(zip(world.state_names, world.state_units, strict=True)),
            ACTION: list(zip(world.action_names, world.action_units, strict=True)),
            KEYPOINTS: list(zip(world.keypoint_names, keypoint_units, strict=True)),
        },
    )
