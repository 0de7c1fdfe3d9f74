"""What an adapter file is made of: a suite, and a gymnasium environment as an evaluation needs it (numpy only)."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError

SEPARATOR = ":"  # between a suite and its task
SETTING = "own"  # of every episode of another suite: it has neither of SIMPLER's settings
_OURS = ("adapter", "process", "serving")  # modules beside the adapters


class SuiteError(InputError):
    """A suite or a task that does not exist, or cannot be used here; the message says what to do."""


class Expert(Protocol):
    """A scripted expert, which may read the state of the simulator."""

    def reset(self) -> None: ...

    def action(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Suite:
    """Tasks of one origin.

    Attributes:
        tasks: their names.
        make: task name, (height, width) [pixels] of images or None for no images -> its world.
        starts: number of official starts of every task.
        cameras: names of the cameras that `make` can draw.
        install: how to get what it needs.
    """

    tasks: Sequence[str]
    make: Callable[[str, tuple[int, int] | None], "World"]
    starts: int
    cameras: tuple[str, ...]
    install: str


@dataclass
class World:
    """One task as an evaluation needs it: `eval.rollout.Environment` and what a policy is checked against.

    Attributes:
        environment: gymnasium's; its own time limit is not used.
        instruction: what the robot is told.
        state_names, state_units: of the numbers that `state` gives.
        action_names, action_units: of an action's columns.
        control_period: [s] between actions.
        max_steps: after which an episode is truncated.
        cameras: name -> draws (height, width, 3) uint8 of what it sees now; empty for no images.
        state: the environment's observation -> (S,) numbers that a policy reads.
        succeeded: info of a step -> whether the task is solved now.
        hold_action: (A,) what keeps the robot where it is, now.
        expert: makes a scripted expert; None if there is none.
        seeded: seeds and resets the environment; returns its observation. None: `environment.reset(seed=seed)`.
        renderer_name: what draws the images.
        kept: columns of an action in which holding repeats the last command, as of a gripper that has grasped.
    """

    environment: Any
    instruction: str
    state_names: tuple[str, ...]
    state_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    control_period: float
    max_steps: int
    cameras: Mapping[str, Callable[[], NDArray[np.uint8]]]
    state: Callable[[Any], NDArray[Any]]
    succeeded: Callable[[Mapping[str, Any]], bool]
    hold_action: NDArray[np.float32]
    expert: Callable[["World"], Expert] | None = None
    seeded: Callable[[int], Any] | None = None
    renderer_name: str = "unknown"
    kept: tuple[int, ...] = ()
    seen: Any = field(default=None, init=False)
    _steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._at_start = self.hold_action

    @property
    def unwrapped(self) -> "World":
        return self

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode: official start n is what the seed n gives; without `episode_id`, `seed` counts."""
        number = int((options or {}).get("episode_id", seed or 0))
        seeded = self.seeded or (lambda value: self.environment.reset(seed=value)[0])
        self.seen, self._steps, self.hold_action = seeded(number), 0, self._at_start
        return self._observation(), self._info({})

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control period; terminations are ignored, because success counts at the last step too."""
        command = np.asarray(action, np.float32)
        self.seen, reward, _, _, info = self.environment.step(command)
        self.hold_action, kept = self._at_start.copy(), list(self.kept)
        self.hold_action[kept] = command[kept]
        self._steps += 1
        return self._observation(), float(reward), False, self._steps >= self.max_steps, self._info(info)

    def make_expert(self) -> Expert:
        """The scripted expert.

        Raises:
            SuiteError: if the suite has none.
        """
        if self.expert is None:
            raise SuiteError("this suite has no scripted expert; choose another policy")
        return self.expert(self)

    def close(self) -> None:
        self.environment.close()

    def _observation(self) -> dict[str, Any]:
        images = {name: np.ascontiguousarray(draw()) for name, draw in self.cameras.items()}
        return {"images": images, "state": np.asarray(self.state(self.seen), np.float32)}

    def _info(self, info: Mapping[str, Any]) -> dict[str, Any]:
        solved = bool(info) and bool(self.succeeded(info))
        return {"instruction": self.instruction, "success": solved, "success_strict": solved}


def is_foreign(task: str) -> bool:
    """Whether a task's name says that it is of another suite."""
    return SEPARATOR in task


def split(task: str) -> tuple[str, str]:
    """Suite and task of `<suite>:<task>`."""
    suite, _, name = task.rpartition(SEPARATOR)
    return suite, name


def names() -> list[str]:
    """The suites that are shipped."""
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name for name in found if name not in _OURS)


def find(suite: str) -> Suite:
    """The suite of this name, or of this adapter file.

    Raises:
        SuiteError: if there is none, or the file defines none.
    """
    if suite.endswith(".py"):
        return _of_file(Path(suite))
    if suite not in names():
        raise SuiteError(
            f"unknown suite {suite!r}; allowed: {', '.join(names())}, or the path of an adapter file (.py)"
        )
    return importlib.import_module(f"{__package__}.{suite}").SUITE


def check(task: str) -> Suite:
    """The suite of a task.

    Raises:
        SuiteError: if the suite or the task does not exist.
    """
    suite, name = split(task)
    found = find(suite)
    if name not in found.tasks:
        raise SuiteError(f"unknown task {name!r} of {suite}; allowed: {', '.join(found.tasks)}")
    return found


def _of_file(path: Path) -> Suite:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None or not path.is_file():
        raise SuiteError(f"there is no adapter file {path}")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    suite = getattr(module, "SUITE", None)
    if not isinstance(suite, Suite):
        raise SuiteError(f"{path} must define SUITE, an eval.suites.adapter.Suite")
    return suite
