"""Asks a server for its metrics again and again; a server that is away is asked until it is back."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from time import perf_counter

from rich.console import RenderableType

from policy_server.client import PolicyUnavailable, RemoteError, RemotePolicy
from policy_server.top.screen import screen, silence


@dataclass(frozen=True)
class Look:
    """One look at a server.

    Attributes:
        shown: for the terminal.
        answered: whether the server did.
    """

    shown: RenderableType
    answered: bool


def watch(connect: Callable[[], RemotePolicy]) -> Generator[Look]:
    """One look for every `next`, without end; close it to close the connection.

    Args:
        connect: a new connection.

    Raises:
        InputError: if the server speaks another protocol, or the endpoint is none.
    """
    remote: RemotePolicy | None = None
    endpoint = "the server"
    try:
        while True:
            try:
                remote = remote or connect()
                endpoint = remote.endpoint
                yield Look(_asked(remote), True)
            except (PolicyUnavailable, RemoteError) as error:  # noqa: PERF203
                if remote is not None:
                    remote.close()
                remote = None  # it may come back with another policy
                yield Look(silence(endpoint, error), False)
    finally:
        if remote is not None:
            remote.close()


def _asked(remote: RemotePolicy) -> RenderableType:
    started = perf_counter()
    metrics = remote.metrics()
    return screen(remote.endpoint, remote.spec, metrics, 1000 * (perf_counter() - started))
