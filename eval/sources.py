"""Where the evaluated policy comes from: a server of our own, another's server, this process, or a script."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eval.policies import ExpertPolicy, HoldPolicy, RandomPolicy
from eval.served import ServedPolicy, argument
from eval.settings import Settings
from policy_server.client import PolicyUnavailable, RemotePolicy
from vla.api import InputError, Policy, PolicySpec


class Source(Protocol):
    """Gives the policy for each episode."""

    @property
    def spec(self) -> PolicySpec | None:
        """Of the policy, or None if it takes its shape from the robot."""
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

    def policy(self, world: Any) -> Policy:
        self.ready()
        return self.only


@dataclass(frozen=True)
class PerRobot:
    """A policy made for the environment it plays."""

    make: Callable[[Any], Policy]
    spec: None = None

    def policy(self, world: Any) -> Policy:
        return self.make(world)


def open_source(settings: Settings) -> AbstractContextManager[Source]:
    """Open what `policy=` names.

    Raises:
        InputError: if its model, checkpoint, recipe or endpoint cannot be used.
        ServerError: if a server process of our own fails.
    """
    kinds: dict[str, Callable[[Settings], AbstractContextManager[Source]]] = {
        "served": _served,
        "remote": _remote,
        "local": _local,
        "expert": lambda _: _scripted(_expert),
        "random": lambda _: _scripted(RandomPolicy),
        "hold": lambda _: _scripted(HoldPolicy),
    }
    return kinds[settings.policy](settings)


@contextmanager
def _served(settings: Settings) -> Iterator[Source]:
    chosen = {name: value for name, value in settings.served().items() if value is not None}
    arguments = [argument(name, value) for name, value in chosen.items()]
    with ServedPolicy(arguments, Path(settings.out) / "server.log", timeout=settings.timeout) as policy:
        yield Fixed(policy, ready=policy.revive)


@contextmanager
def _remote(settings: Settings) -> Iterator[Source]:
    if not settings.endpoint:
        raise InputError("policy=remote needs endpoint=tcp://host:port of a running cadence-serve")
    try:
        remote = RemotePolicy(settings.endpoint, timeout=settings.timeout)
    except PolicyUnavailable as error:
        raise InputError(str(error)) from error
    with remote as policy:
        yield Fixed(policy)


@contextmanager
def _local(settings: Settings) -> Iterator[Source]:
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
        )
    )


@contextmanager
def _scripted(make: Callable[[Any], Policy]) -> Iterator[Source]:
    yield PerRobot(make)


def _expert(world: Any) -> Policy:
    import envs.experts

    return ExpertPolicy(world, envs.experts.make(world))
