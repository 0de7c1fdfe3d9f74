"""RemotePolicy: the same actions as the local policy, clear refusals, and never a hang."""

import pickletools
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import zmq

from policy_server import messages
from policy_server.client import PolicyUnavailable, RemoteError, RemotePolicy
from policy_server.messages import Embodiment
from policy_server.server import PolicyServer
from policy_server.wire import Message, decode, encode
from tests.policies import SPEC, Digest, observation
from vla.api import ActionChunk, Camera, InputError, Observation

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own; the first line it writes is its endpoint."""
    command = [sys.executable, "-m", "tests.policies"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def server() -> Iterator[PolicyServer]:
    with PolicyServer(Digest()) as running:
        yield running


def assert_equals_local(remote: RemotePolicy) -> None:
    local = Digest()
    for step in range(6):
        seen = observation(seed=step, session="s", step=step, time=0.2 * step)
        if step == 4:
            remote.reset("s")
            local.reset("s")
        got, expected = remote.infer(seen), local.infer(seen)
        assert got.actions.dtype == np.float32
        assert got.actions.tobytes() == expected.actions.tobytes()
        assert got.period == expected.period
        assert got.timing["total"] == expected.timing["total"]
        assert got.timing["round_trip"] >= got.timing["server"]


def test_remote_equals_local_bit_for_bit_from_a_thread(server: PolicyServer) -> None:
    with RemotePolicy(server.endpoint) as remote:
        assert_equals_local(remote)


def test_remote_equals_local_bit_for_bit_from_another_process(process: subprocess.Popen[str]) -> None:
    with RemotePolicy(line(process), timeout=20.0) as remote:
        assert remote.spec == SPEC
        assert_equals_local(remote)


def test_a_server_killed_mid_request_ends_in_an_error_within_the_timeout(process: subprocess.Popen[str]) -> None:
    endpoint = line(process)
    with RemotePolicy(endpoint, timeout=20.0) as remote, ThreadPoolExecutor() as threads:
        remote.timeout = 1.0
        asking = threads.submit(remote.infer, observation(instruction="hang"))
        assert line(process) == "hanging"
        process.kill()
        with pytest.raises(PolicyUnavailable, match=rf"no answer from a policy server at {endpoint} within 1 s"):
            asking.result(timeout=20)
        with pytest.raises(PolicyUnavailable):
            remote.infer(observation())


def test_nobody_answering_names_the_endpoint_and_what_to_check() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PolicyUnavailable, match=rf"at {endpoint} within 0.1 s: check that cadence-serve runs"):
            RemotePolicy(endpoint, timeout=0.1)


def test_hello_is_repeated_until_the_server_is_there() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
    with ThreadPoolExecutor() as threads:
        connecting = threads.submit(RemotePolicy, endpoint, 20.0)
        with PolicyServer(Digest(), endpoint), connecting.result(timeout=20) as remote:
            assert remote.spec == SPEC


def test_the_client_finds_a_restarted_server_again() -> None:
    with PolicyServer(Digest()) as server:
        remote = RemotePolicy(server.endpoint, timeout=20.0)
        before = remote.infer(observation())
    with remote, PolicyServer(Digest(), server.endpoint):
        assert np.array_equal(remote.infer(observation()).actions, before.actions)


def test_a_server_restarted_with_another_policy_is_noticed() -> None:
    with PolicyServer(Digest()) as server:
        remote = RemotePolicy(server.endpoint, timeout=20.0)
    with (
        remote,
        PolicyServer(Digest(replace(SPEC, checkpoint="other")), server.endpoint),
        pytest.raises(InputError, match="restarted with another policy: connect again"),
    ):
        remote.infer(observation())


@pytest.mark.parametrize("endpoint", ["", "127.0.0.1:5555", "tcp://127.0.0.1", "tcp://127.0.0.1:port"])
def test_bad_endpoints_are_refused(endpoint: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(endpoint)) + ".*an endpoint is tcp://host:port"):
        RemotePolicy(endpoint, timeout=0.1)


def test_a_timeout_must_be_positive() -> None:
    with pytest.raises(InputError, match="timeout must be positive, finite seconds, got 0"):
        RemotePolicy("tcp://127.0.0.1:5555", timeout=0)


def test_a_robot_that_does_not_fit_is_refused_when_connecting(server: PolicyServer) -> None:
    fits = Embodiment(SPEC.cameras, SPEC.state, SPEC.actions, SPEC.period)
    RemotePolicy(server.endpoint, embodiment=fits).close()
    with pytest.raises(InputError, match=r"needs camera 'front' 4 x 6, the client sends .*480 x 640.*expects \[\]"):
        RemotePolicy(server.endpoint, embodiment=replace(fits, cameras=(Camera("front", 480, 640),), actions=()))


def test_observations_are_checked_before_they_are_sent(server: PolicyServer) -> None:
    small = observation(images={"front": np.zeros((2, 2, 3), np.uint8)})
    with RemotePolicy(server.endpoint) as remote:
        with pytest.raises(InputError, match="needs camera 'front' of 4 x 6; the image is 2 x 2"):
            remote.infer(small)
        assert remote.health()["served"] == 0


def test_what_the_policy_raises_is_raised_here(server: PolicyServer) -> None:
    with RemotePolicy(server.endpoint) as remote:
        with pytest.raises(InputError, match=r"^this policy does not know the instruction 'refuse'$"):
            remote.infer(observation(instruction="refuse"))
        with pytest.raises(RemoteError, match="answered internal: ZeroDivisionError: the policy is broken") as caught:
            remote.infer(observation(instruction="fail"))
        assert caught.value.type == "internal"
        assert remote.infer(observation()).actions.shape == (5, 3)


class Scripted:
    """A server that answers only when the test says so."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.RCVTIMEO, 20_000)
        port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"

    def receive(self) -> Message:
        self.peer, _, *frames = self.router.recv_multipart()
        return decode(frames)

    def answer(self, *replies: Message) -> None:
        for reply in replies:
            self.router.send_multipart([self.peer, b"", *encode(reply)])

    def connect(self, threads: ThreadPoolExecutor) -> RemotePolicy:
        connecting = threads.submit(RemotePolicy, self.endpoint, 20.0)
        self.answer(messages.welcome(self.receive().seq, SPEC))
        return connecting.result(timeout=20)


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    running = Scripted()
    yield running
    running.context.destroy(linger=0)


def chunk(first: float) -> ActionChunk:
    return ActionChunk(np.full((5, 3), first, np.float32), SPEC.period)


def test_late_replies_are_discarded(scripted: Scripted) -> None:
    with ThreadPoolExecutor() as threads, scripted.connect(threads) as remote:
        asking = threads.submit(remote.infer, observation())
        request = scripted.receive()
        late = replace(request, seq=request.seq - 1)
        scripted.answer(messages.actions(late, chunk(1), {}), messages.actions(request, chunk(2), {}))
        assert asking.result(timeout=20).actions[0, 0] == 2


def test_after_a_timeout_the_next_call_gets_its_own_answer(scripted: Scripted) -> None:
    with ThreadPoolExecutor() as threads, scripted.connect(threads) as remote:
        remote.timeout = 0.05
        with pytest.raises(PolicyUnavailable):
            remote.infer(observation())
        remote.timeout = 20.0
        asking = threads.submit(remote.infer, observation(instruction="second"))
        while (request := scripted.receive()).body["instruction"] != "second":
            scripted.answer(messages.actions(request, chunk(1), {}))
        scripted.answer(messages.actions(request, chunk(2), {}))
        assert asking.result(timeout=20).actions[0, 0] == 2


def test_requests_carry_the_deadline(scripted: Scripted) -> None:
    with ThreadPoolExecutor() as threads, scripted.connect(threads) as remote:
        asking = threads.submit(remote.infer, observation())
        request = scripted.receive()
        assert request.deadline_ms == 20_000
        assert request.body["spec_id"] == messages.spec_id(SPEC)
        scripted.answer(messages.actions(request, chunk(1), {}))
        asking.result(timeout=20)


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (np.zeros((4, 3), np.float32), r"actions must be float32 \(5, 3\), the server answered float32 \(4, 3\)"),
        (np.zeros((5, 3), np.float64), "the server answered float64"),
        (np.full((5, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_actions_that_break_the_spec_never_reach_the_robot(scripted: Scripted, actions: np.ndarray, said: str) -> None:
    with ThreadPoolExecutor() as threads, scripted.connect(threads) as remote:
        asking = threads.submit(remote.infer, observation())
        reply = Message(
            "infer", scripted.receive().seq, body={"period": 0.2, "codec": "raw"}, arrays={"actions": actions}
        )
        scripted.answer(reply)
        with pytest.raises(InputError, match=said):
            asking.result(timeout=20)


def test_a_server_of_another_version_is_named(scripted: Scripted) -> None:
    with ThreadPoolExecutor() as threads:
        connecting = threads.submit(RemotePolicy, scripted.endpoint, 20.0)
        scripted.receive()
        scripted.router.send_multipart([scripted.peer, b"", b'{"version":3,"seq":1}'])
        with pytest.raises(InputError, match="sender speaks wire version 3, the receiver speaks version 2; install"):
            connecting.result(timeout=20)


def test_closing_is_prompt_whatever_is_unsent(scripted: Scripted) -> None:
    with ThreadPoolExecutor() as threads:
        remote = scripted.connect(threads)
        remote.timeout = 0.01
        for step in range(10):
            with pytest.raises(PolicyUnavailable):
                remote.infer(observation(step=step))
        began = perf_counter()
        remote.close()
        remote.close()
        assert perf_counter() - began < 10  # a hang, not a speed: an unsent request would block for ever


def test_importing_the_client_loads_neither_torch_nor_mujoco() -> None:
    probe = "import sys, policy_server.client; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "mujoco", "transformers", "hydra", "gymnasium"}.isdisjoint(loaded.stdout.split())


def test_nothing_that_is_sent_is_a_pickle(server: PolicyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pickle.loads", None)
    monkeypatch.setattr("pickle.dumps", None)
    with RemotePolicy(server.endpoint) as remote:
        remote.infer(observation())
    for frame in encode(messages.infer(1, observation(), None, None)):
        with pytest.raises(ValueError, match=r"."):
            list(pickletools.genops(bytes(frame)))


def test_a_remote_policy_is_used_like_any_policy(server: PolicyServer) -> None:
    def act(policy: RemotePolicy | Digest, seen: Observation) -> bytes:
        policy.reset(seen.session)
        return policy.infer(seen).actions.tobytes()

    with RemotePolicy(server.endpoint) as remote:
        assert act(remote, observation()) == act(Digest(), observation())
