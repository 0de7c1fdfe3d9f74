"""Control steps per second of the environments, one camera image a step; where the milliseconds go; memory.

python benchmarks/simulation.py                          every task, with one 224 x 224 image a step
python benchmarks/simulation.py --tasks widowx_stack_cube --quality     what shadows and anti-aliasing cost

Each figure is the median over `--repeats` stretches of `--steps` control steps of the scripted expert, with the range.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("LP_NUM_THREADS", "1")  # one core a process, as evaluations with several workers use them
sys.path.pop(0)  # this folder, in which `envs` would be this file

import mujoco
import psutil

import envs
from envs import experts
from envs.manipulation import ManipulationEnv
from envs.staging import Staging
from envs.task import Task
from envs.tasks import find

QUALITIES = [(shadows, samples) for samples in (0, 4) for shadows in (0, 512, 1024, 2048, 4096)]


@dataclass(frozen=True)
class Speed:
    """Control steps per second: median, lowest, highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, rates: list[float]) -> "Speed":
        return cls(statistics.median(rates), min(rates), max(rates))

    def __str__(self) -> str:
        return f"{self.median:6.1f} [{self.lowest:.1f}, {self.highest:.1f}]"


def expert_steps(env: ManipulationEnv) -> Iterator[Callable[[], None]]:
    """Endless control steps of the expert; resets and the expert's own thinking happen between them."""
    expert = experts.make(env)
    for seed in range(10**9):
        env.reset(seed=seed)
        expert.reset()
        for _ in range(env.max_episode_steps):
            action = expert.action()
            yield lambda action=action: env.step(action) and None


def speed(env: ManipulationEnv, steps: int, repeats: int) -> Speed:
    """Time `repeats` stretches of `steps` control steps, after one that warms up."""
    todo, rates = expert_steps(env), []
    for repeat in range(repeats + 1):
        spent = 0.0
        for _ in range(steps):
            step = next(todo)
            start = time.perf_counter()
            step()
            spent += time.perf_counter() - start
        if repeat:
            rates.append(steps / spent)
    return Speed.of(rates)


def report_task(name: str, size: int, steps: int, repeats: int) -> None:
    """Print one task's line; called in a process of its own, so that memory is that of one task."""
    with_images = envs.make(name, image_size=(size, size))
    drawn = speed(with_images, steps, repeats)
    memory = psutil.Process().memory_info().rss / 1e6
    physics = speed(envs.make(name, render=False), steps, repeats)
    milliseconds = 1e3 / drawn.median - 1e3 / physics.median
    print(f"{name:<46} {drawn!s:>24} {1e3 / physics.median:9.2f} {milliseconds:9.2f} {memory:8.0f}", flush=True)


def with_quality(task: Task, shadows: int, samples: int) -> Task:
    """The task in a scene with this shadow map [pixels] and number of anti-aliasing samples."""

    def build(spec: mujoco.MjSpec) -> None:
        task.scene.build(spec)
        spec.visual.quality.shadowsize, spec.visual.quality.offsamples = shadows, samples

    changed: Any = task
    return dataclasses.replace(changed, scene=dataclasses.replace(task.scene, build=build))


def report_quality(name: str, size: int, steps: int, repeats: int) -> None:
    """Print the speed for each size of the shadow map (0: no shadows) and number of anti-aliasing samples."""
    print(f"{'shadow map':>10} {'samples':>8} {'control steps/s':>24}   {name}")
    for shadows, samples in QUALITIES:
        env = ManipulationEnv(with_quality(find(name), shadows, samples), Staging(), image_size=(size, size))
        print(f"{shadows:>10} {samples:>8} {speed(env, steps, repeats)!s:>24}", flush=True)
        env.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(envs.TASKS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = (options.size, options.steps, options.repeats)
    if options.quality:
        for name in options.tasks:
            report_quality(name, *work)
    elif options.one:
        report_task(options.tasks[0], *work)
    else:
        print(f"MuJoCo {mujoco.__version__}, {options.size} px, {options.repeats} x {options.steps} steps")
        print(f"{'task':<46} {'control steps/s':>24} {'world ms':>9} {'image ms':>9} {'RSS MB':>8}", flush=True)
        sizes = [f"--{key}={getattr(options, key)}" for key in ("size", "steps", "repeats")]
        for name in options.tasks:
            subprocess.run([sys.executable, __file__, "--one", "--tasks", name, *sizes], check=True)


if __name__ == "__main__":
    main()
