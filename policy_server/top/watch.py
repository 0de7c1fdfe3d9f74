"""Asks a server for its metrics again and again; a server that is away is asked until it is back."""

from collections.abc import Callable, Generator
from time import perf_counter

from rich.console import RenderableType

from policy_server.client import PolicyUnavailable, RemoteError, RemotePolicy
from policy_server.top.screen import screen, silence


def watch(connect: Callable[[], RemotePolicy]) -> Generator[RenderableType]:
    """One screen for every `next`, without end.

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
                yield _asked(remote)
            except (PolicyUnavailable, RemoteError) as error:  # noqa: PERF203
                if remote is not None:
                    remote.close()
                remote = None  # it may come back with another policy
                yield silence(endpoint, error)
    finally:
        if remote is not None:
            remote.close()


def _asked(remote: RemotePolicy) -> RenderableType:
    started = perf_counter()
    metrics = remote.metrics()
    return screen(remote.endpoint, remote.spec, metrics, 1000 * (perf_counter() - started))
