"""Where the evaluated policy comes from: a server of our own, another's server, this process, or a script."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from eval.policies import ExpertPolicy, HoldPolicy, RandomPolicy
from eval.served import ServedPolicy, argument
from eval.settings import Settings
from eval.worlds import robot_of
from policy_server.client import PolicyUnavailable, RemotePolicy
from vla.api import InputError, Policy, PolicySpec


class Source(Protocol):
    """Gives the policy for each episode."""

    @property
    def spec(self) -> PolicySpec | None:
        """Of the policy now, or None if it takes its shape from the robot."""
        ...

    def for_task(self, task: str) -> PolicySpec | None:
        """Turn to a task, and to a policy for its robot; returns `spec`."""
        ...

    def policy(self, world: Any) -> Policy:
        """The policy to use now in this environment; called before each episode.

        Args:
            world: an unwrapped environment.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """One policy for every environment.

    Attributes:
        ready: called before each episode; raises if the policy cannot be had any more.
    """

    only: Policy
    ready: Callable[[], None] = lambda: None

    @property
    def spec(self) -> PolicySpec:
        return self.only.spec

    def for_task(self, task: str) -> PolicySpec:
        return self.spec

    def policy(self, world: Any) -> Policy:
        self.ready()
        return self.only


@dataclass(frozen=True)
class PerRobot:
    """A policy made for the environment it plays."""

    make: Callable[[Any], Policy]
    spec: None = None

    def for_task(self, task: str) -> None:
        return None

    def policy(self, world: Any) -> Policy:
        return self.make(world)


class ByRobot:
    """A model opened for one robot at a time, because each has its own cameras and units; a context manager.

    Args:
        open_for: robot's name -> the source of its policy.
        first: robot to begin with.
    """

    def __init__(self, open_for: Callable[[str], AbstractContextManager[Source]], first: str) -> None:
        self._open_for = open_for
        self._robot = first
        self._stack = ExitStack()

    def __enter__(self) -> "ByRobot":
        self._now = self._stack.enter_context(self._open_for(self._robot))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def spec(self) -> PolicySpec | None:
        return self._now.spec

    def for_task(self, task: str) -> PolicySpec | None:
        robot = robot_of(task)
        if robot != self._robot:
            self._stack.close()
            self._robot = robot
            self._now = self._stack.enter_context(self._open_for(robot))
        return self._now.for_task(task)

    def policy(self, world: Any) -> Policy:
        return self._now.policy(world)


def open_source(settings: Settings, first: str) -> AbstractContextManager[Source]:
    """Open what `policy=` names.

    Args:
        settings: of the evaluation.
        first: task to begin with.

    Raises:
        InputError: if its model, checkpoint, recipe or endpoint cannot be used.
        ServerError: if a server process of our own fails.
    """
    kinds: dict[str, Callable[[Settings], AbstractContextManager[Source]]] = {
        "served": lambda _: ByRobot(partial(_served, settings), robot_of(first)),
        "remote": _remote,
        "local": lambda _: ByRobot(partial(_local, settings), robot_of(first)),
        "expert": lambda _: _scripted(_expert),
        "random": lambda _: _scripted(RandomPolicy),
        "hold": lambda _: _scripted(HoldPolicy),
    }
    return kinds[settings.policy](settings)


@contextmanager
def _served(settings: Settings, robot: str) -> Iterator[Source]:
    chosen = {name: value for name, value in settings.served().items() if value is not None} | {"robot": robot}
    arguments = [argument(name, value) for name, value in chosen.items()]
    log, connection = Path(settings.out) / "server.log", settings.connection()
    with ServedPolicy(arguments, log, timeout=settings.timeout, connection=connection) as policy:
        yield Fixed(policy, ready=policy.revive)


@contextmanager
def _remote(settings: Settings) -> Iterator[Source]:
    if not settings.endpoint:
        raise InputError("policy=remote needs endpoint=tcp://host:port of a running cadence-serve")
    try:
        remote = RemotePolicy(settings.endpoint, timeout=settings.timeout, **settings.connection())
    except PolicyUnavailable as error:
        raise InputError(str(error)) from error
    with remote as policy:
        yield Fixed(policy)


@contextmanager
def _local(settings: Settings, robot: str) -> Iterator[Source]:
    import torch  # only here does the model live in this process

    from vla.policy import load_policy

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    yield Fixed(
        load_policy(
            model=settings.model,
            checkpoint=settings.checkpoint,
            recipe=settings.accel,
            device=settings.device,
            dtype=settings.dtype,
            init=settings.init,
            dataset=settings.dataset,
            robot=robot,
        )
    )


@contextmanager
def _scripted(make: Callable[[Any], Policy]) -> Iterator[Source]:
    yield PerRobot(make)


def _expert(world: Any) -> Policy:
    import envs.experts

    return ExpertPolicy(world, envs.experts.make(world))
