"""Where a server may listen, and what it says when it cannot."""

import pytest
import zmq

from policy_server.arrays import MAX_MESSAGE_BYTES
from policy_server.client import RemotePolicy
from policy_server.dialect import build
from policy_server.metrics import check_address
from policy_server.router import check_endpoint, check_free
from policy_server.server import PolicyServer
from policy_server.wire import Message
from tests.policies import SPEC, Digest
from tests.policy_server.foreign import GOLDEN_SPEC, OPENPI
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


@pytest.mark.parametrize("port", ["65536", "99999", "123456", "9" * 5000])
def test_ports_that_do_not_exist_are_refused(port: str) -> None:
    with pytest.raises(InputError, match="has a port that does not exist: the largest one is 65535"):
        check_endpoint(f"tcp://127.0.0.1:{port}", protected=False, insecure=False)
    with pytest.raises(InputError, match="has a port that does not exist: the largest one is 65535"):
        check_address(f"127.0.0.1:{port}", insecure=False)
    with pytest.raises(InputError, match="has a port that does not exist: the largest one is 65535"):
        build({**OPENPI, "endpoint": f"ws://127.0.0.1:{port}"}, GOLDEN_SPEC)


def test_the_largest_port_exists() -> None:
    check_endpoint("tcp://127.0.0.1:65535", protected=False, insecure=False)
    assert check_address("127.0.0.1:65535", insecure=False) == ("127.0.0.1", 65535)


def test_a_port_is_free_again_after_it_was_tried() -> None:
    with PolicyServer(Digest()) as server:
        endpoint = server.endpoint
        with pytest.raises(InputError, match="the port is in use"):
            check_free(endpoint)
    check_free(endpoint)
    with PolicyServer(Digest(), endpoint) as server:
        assert server.endpoint == endpoint


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
