"""Running servers and sockets that are closed when a test ends."""

from collections.abc import Iterator

import pytest
import zmq

from policy_server.server import PolicyServer
from tests.policies import Digest, Gated
from tests.policy_server.sockets import Connect, Raw


@pytest.fixture
def gated() -> Gated:
    return Gated()


@pytest.fixture
def server(gated: Gated) -> Iterator[PolicyServer]:
    with PolicyServer(gated) as running:
        yield running
        gated.gate.release(100)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """`connect(endpoint, kind=zmq.DEALER)` gives a Raw that is closed when the test ends."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    opened: list[Raw] = []

    def connected(endpoint: str, kind: int = zmq.DEALER) -> Raw:
        opened.append(Raw(context, endpoint, kind))
        return opened[-1]

    yield connected
    context.destroy(linger=0)


@pytest.fixture
def raw(connect: Connect, server: PolicyServer) -> Raw:
    return connect(server.endpoint)


@pytest.fixture
def digest_server() -> Iterator[PolicyServer]:
    with PolicyServer(Digest()) as running:
        yield running


@pytest.fixture
def plain(connect: Connect, digest_server: PolicyServer) -> Raw:
    return connect(digest_server.endpoint)
