"""Where a server may listen, and what it says when it cannot."""

import pytest
import zmq

from policy_server.arrays import MAX_MESSAGE_BYTES
from policy_server.client import RemotePolicy
from policy_server.server import PolicyServer
from policy_server.wire import Message
from tests.policies import SPEC, Digest
from tests.policy_server.sockets import TIMEOUT_MS, Connect
from vla.api import InputError


def test_a_port_in_use_is_named_with_a_remedy(digest_server: PolicyServer) -> None:
    with pytest.raises(InputError, match=f"{digest_server.endpoint}: the port is in use: stop the other server"):
        PolicyServer(Digest(), digest_server.endpoint).__enter__()


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://*:5555", "tcp://192.0.2.7:5555", "tcp://[::]:5555"])
def test_addresses_that_others_can_reach_need_consent(endpoint: str) -> None:
    with pytest.raises(InputError, match=r"can be reached from other machines.*insecure=true"):
        PolicyServer(Digest(), endpoint)


def test_consent_binds_every_interface() -> None:
    with PolicyServer(Digest(), "tcp://*:0", insecure=True) as server:
        port = server.endpoint.rpartition(":")[2]
        with RemotePolicy(f"tcp://127.0.0.1:{port}") as remote:
            assert remote.spec == SPEC


@pytest.mark.parametrize("endpoint", ["", "localhost:5555", "http://127.0.0.1:80", "tcp://127.0.0.1", "ipc:///tmp/x"])
def test_other_endpoints_are_refused_by_form(endpoint: str) -> None:
    with pytest.raises(InputError, match="an endpoint is tcp://host:port"):
        PolicyServer(Digest(), endpoint)


def test_an_address_of_another_machine_is_refused_at_once() -> None:
    with pytest.raises(InputError, match=r"cannot serve at tcp://192\.0\.2\.7:5555"):
        PolicyServer(Digest(), "tcp://192.0.2.7:5555", insecure=True).__enter__()


def test_oversized_frames_cut_the_sender_off_and_not_the_others(connect: Connect, digest_server: PolicyServer) -> None:
    sender = connect(digest_server.endpoint)
    monitor = sender.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    sender.socket.send_multipart([b"", b"{}", bytes(MAX_MESSAGE_BYTES + 1)])
    assert monitor.poll(TIMEOUT_MS)
    sender.socket.disable_monitor()
    monitor.close()
    assert connect(digest_server.endpoint).ask(Message("health", 1)).kind == "health"
