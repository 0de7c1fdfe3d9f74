"""Where the evaluated policy comes from: a server of our own, another's server, this process, or a script."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from eval.peers import PeerError, PeerPolicy
from eval.policies import ExpertPolicy, HoldPolicy, RandomPolicy
from eval.served import ServedPolicy
from eval.settings import Settings
from eval.worlds import robot_of, robot_spec
from policy_server.client import PolicyUnavailable, RemotePolicy
from vla.api import InputError, Policy, PolicySpec
from vla.overrides import argument


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


class Dialled:
    """A policy server that somebody else keeps alive, and that may come back at another address; a context manager.

    Args:
        connect: address -> a connection to the server there.
    """

    def __init__(self, connect: Callable[[str], RemotePolicy]) -> None:
        self._connect = connect
        self._address = ""
        self._stack = ExitStack()
        self._remote: RemotePolicy | None = None

    def __enter__(self) -> "Dialled":
        return self

    def __exit__(self, *_: object) -> None:
        self.dial("")

    def dial(self, address: str) -> None:
        """Say where the server is from now on; a connection to another address is closed."""
        if address != self._address:
            self._stack.close()
            self._address, self._remote = address, None

    @property
    def spec(self) -> PolicySpec | None:
        return self._remote.spec if self._remote else None

    def for_task(self, task: str) -> PolicySpec:
        return self._connected().spec

    def policy(self, world: Any) -> Policy:
        return self._connected()

    def _connected(self) -> RemotePolicy:
        if self._remote is None:
            self._remote = self._stack.enter_context(self._connect(self._address))
        return self._remote


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


class Foreign:
    """Another project's policy server, connected for one robot at a time; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._robot = settings, ""
        self._stack = ExitStack()
        self._policy: PeerPolicy | None = None

    def __enter__(self) -> "Foreign":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def spec(self) -> PolicySpec | None:
        return self._policy.spec if self._policy else None

    def for_task(self, task: str) -> PolicySpec:
        """Connect for a task's robot.

        Raises:
            InputError: if there is no server, or its set-up does not fit the robot.
        """
        if self._policy is None or robot_of(task) != self._robot:
            self._stack.close()
            chosen = self._settings
            robot = robot_spec(task, chosen.dialect or "", chosen.rows, chosen.suite_python)
            try:
                policy = PeerPolicy(chosen.endpoint or "", chosen.dialect or "", robot, chosen.timeout)
            except PeerError as error:
                raise InputError(str(error)) from error
            self._stack.callback(policy.close)
            self._policy, self._robot = policy, robot_of(task)
        return self._policy.spec

    def policy(self, world: Any) -> Policy:
        assert self._policy is not None, "for_task comes first"
        return self._policy


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
        "remote": _foreign if settings.dialect else _remote,
        "local": lambda _: ByRobot(partial(_local, settings), robot_of(first)),
        "expert": lambda _: _scripted(_expert),
        "random": lambda _: _scripted(RandomPolicy),
        "hold": lambda _: _scripted(HoldPolicy),
    }
    return kinds[settings.policy](settings)


def served_policy(settings: Settings, robot: str) -> ServedPolicy:
    """A server process of our own for a robot, not started yet."""
    arguments = [argument(name, value) for name, value in settings.server(robot).items()]
    log, connection = Path(settings.out) / "server.log", settings.connection()
    return ServedPolicy(arguments, log, timeout=settings.timeout, connection=connection)


def dialled(settings: Settings) -> Dialled:
    """The source of a worker process whose policy server its parent keeps alive."""
    return Dialled(partial(RemotePolicy, timeout=settings.timeout, **settings.connection()))


@contextmanager
def _served(settings: Settings, robot: str) -> Iterator[Source]:
    with served_policy(settings, robot) as policy:
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
def _foreign(settings: Settings) -> Iterator[Source]:
    """Another project's server, in its own words."""
    with Foreign(settings) as source:
        yield source


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
    if hasattr(world, "make_expert"):  # another suite's
        return ExpertPolicy(world, world.make_expert())
    import envs.experts

    return ExpertPolicy(world, envs.experts.make(world))
