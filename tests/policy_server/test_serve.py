"""`cadence-serve` as a user and a robot meet it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from policy_server.__main__ import announce, main
from policy_server.client import RemotePolicy
from policy_server.recordings import held
from policy_server.server import PolicyServer
from policy_server.wire import Message
from tests.policies import Digest, Gated
from tests.policies import observation as seen_by_gated
from tests.policy_server.sockets import Connect, infer
from tests.vla.small import observation, save_small
from vla.api import Policy
from vla.policy import load_policy

Run = Callable[..., int]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("serve") / "checkpoint")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Path) -> Iterator[Run]:
    """Runs the command in this process on a small checkpoint; returns its exit status."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def command(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        free = "endpoint=tcp://127.0.0.1:0"
        monkeypatch.setattr(sys, "argv", ["cadence-serve", f"checkpoint={checkpoint}", free, *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    yield command
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_served_policy_acts_as_the_local_one_bit_for_bit_until_it_is_told_to_stop(
    checkpoint: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "endpoint.partial"  # a reader of this pipe sleeps until the server has written its endpoint
    os.mkfifo(pipe)
    arguments = [f"checkpoint={checkpoint}", "endpoint=tcp://127.0.0.1:0", f"announce={tmp_path / 'endpoint'}"]
    command = [sys.executable, "-m", "policy_server", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        endpoint = pipe.read_text().strip()
        with RemotePolicy(endpoint, timeout=30.0) as remote:
            local = load_policy(checkpoint=checkpoint)
            assert remote.spec == local.spec
            for step in (0, 3):
                seen = observation(seed=step, step=step)
                served, expected = remote.infer(seen), local.infer(seen)
                np.testing.assert_array_equal(served.actions, expected.actions)
                assert {"encode", "prefill", "head", "total"} <= set(served.timing)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_sigterm_finishes_the_running_request_and_exits_with_status_0(
    run: Run, gated: Gated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("policy_server.__main__.warm_up", lambda *_: None)
    monkeypatch.setattr("policy_server.__main__._load", lambda _: gated)
    pipe = tmp_path / "endpoint.partial"  # a reader sleeps until the server has written its endpoint
    os.mkfifo(pipe)

    def robot() -> tuple[str, str]:
        with RemotePolicy(pipe.read_text().strip(), timeout=30.0) as remote, ThreadPoolExecutor() as threads:
            asking = threads.submit(remote.infer, seen_by_gated())
            assert gated.begun.acquire(timeout=30)
            os.kill(os.getpid(), signal.SIGTERM)
            with RemotePolicy(remote.endpoint, timeout=30.0) as other:
                while (status := other.health()["status"]) != "stopping":
                    pass
            gated.gate.release()
            return str(status), str(asking.result(timeout=30).actions.shape)

    with ThreadPoolExecutor() as threads:
        seen = threads.submit(robot)
        assert run(f"announce={tmp_path / 'endpoint'}") == 0
        assert seen.result(timeout=30) == ("stopping", "(5, 3)")


HANGING = """
import sys
import policy_server.__main__ as serve
from tests.policies import Announcing

serve._load = lambda options: Announcing()
serve.warm_up = lambda *_: None
serve.main()
"""


def test_a_second_signal_does_not_wait_for_a_policy_that_hangs(connect: Connect, tmp_path: Path) -> None:
    pipe = tmp_path / "endpoint.partial"
    os.mkfifo(pipe)
    arguments = ["endpoint=tcp://127.0.0.1:0", f"announce={tmp_path / 'endpoint'}"]
    command = [sys.executable, "-c", HANGING, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            robot = connect(pipe.read_text().strip())
            robot.send(infer(1, instruction="hang"))
            assert process.stdout.readline() == "hanging\n"
            process.send_signal(signal.SIGTERM)
            while robot.ask(Message("health", 2)).body["status"] != "stopping":
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 1
        finally:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read()
    assert "told to stop: waiting for the answer that is being computed" in said
    assert "told to stop again: leaving at once" in said
    assert "Traceback" not in said


def test_the_endpoint_appears_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "endpoint"
    path.write_text("tcp://127.0.0.1:1\n")
    announce(path, "tcp://127.0.0.1:2")
    assert path.read_text() == "tcp://127.0.0.1:2\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading, which may take minutes, fails the test."""

    def load(options: object) -> Policy:
        raise AssertionError("the policy was loaded")

    monkeypatch.setattr("policy_server.__main__._load", load)


@pytest.mark.usefixtures("unloaded")
def test_a_port_in_use_is_refused_before_the_policy_is_loaded(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with PolicyServer(Digest()) as other:
        taken = other.endpoint.removeprefix("tcp://")
        assert run(f"endpoint={other.endpoint}") == 2
        assert f"cannot serve at {other.endpoint}: the port is in use" in capsys.readouterr().err
        assert run(f"metrics={taken}") == 2
        assert f"cannot serve at metrics={taken}: Address already in use" in capsys.readouterr().err
        (tmp_path / "setup.yaml").write_text(f"dialect: openpi\nendpoint: ws://{taken}\n")
        assert run("protocols=[setup.yaml]") == 2
        assert f"dialect setup.yaml: cannot serve at ws://{taken}: Address already in use" in capsys.readouterr().err


def test_what_is_missing_only_when_it_is_needed_is_named_too(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(options: object) -> Policy:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("policy_server.__main__._load", load)
    assert run() == 2
    needs = "cadence-serve needs torch, which is not installed: pip install 'cadence-vla[server]'"
    assert capsys.readouterr().err == f"error: {needs}\n"


@pytest.mark.usefixtures("unloaded")
def test_a_folder_that_cannot_be_recorded_to_is_refused_before_the_policy_is_loaded(
    run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert run("record=full") == 2
    assert "record=full is neither empty nor a dataset" in capsys.readouterr().err
    lock = held(tmp_path / "busy")
    assert run("record=busy") == 2
    assert "another server records to busy" in capsys.readouterr().err
    os.close(lock)


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("checkpoint=null model=huge", "unknown model 'huge'; allowed"),
        ("checkpoint=/nowhere", "there is no checkpoint directory /nowhere"),
        ("modle=tiny", "modle"),
        ("+colour=red", "unknown key colour; allowed: model"),
        ("accel=fastest", "unknown recipe accel='fastest'; allowed: none"),
        ("accel=[none,unguided]", "accel must be one name"),
        ("device=tpu", "device='tpu' is not there"),
        ("dtype=int8", "dtype 'int8'; allowed"),
        ("init=zeros", "init 'zeros'; allowed: trained, random"),
        ("threads=0", "threads must be a whole number of at least 1, got 0"),
        ("max_batch=0", "max_batch must be a whole number of at least 1, got 0"),
        ("max_wait_ms=soon", "max_wait_ms must be a number of at least 0, got 'soon'"),
        ("insecure=maybe", "insecure must be true or false"),
        ("endpoint=5555", "endpoint must be one name, got 5555"),
        ("endpoint=udp://somewhere", "tcp://host:port"),
        ("endpoint=tcp://0.0.0.0:0", "insecure=true"),
        ("endpoint=tcp://127.0.0.1:99999", "has a port that does not exist: the largest one is 65535"),
        ("metrics=127.0.0.1:99999", "metrics=127.0.0.1:99999 has a port that does not exist"),
        ("keys=server.key_secret", "keys=<secret key file> and clients=<folder of public keys> go together"),
        ("keys=/nowhere clients=.", "holds no public key"),
        ("metrics=9090", "metrics is host:port"),
        ("metrics=0.0.0.0:9090", "insecure=true"),
        ("log=xml", "log must be one of text, json"),
        ("record=/dev/null/folder", "record=/dev/null/folder cannot be written"),
        ("rerun=viewer", "rerun is rerun+http://127.0.0.1:9876/proxy of a running viewer, or a file *.rrd"),
        ("replay=/nowhere", "/nowhere is not a LeRobotDataset"),
        ("replay=/nowhere episode=last", "episode must be a whole number, got 'last'"),
        ("protocols=gr00t", "protocols must be a list of names"),
        ("protocols=[gr00d]", "dialect gr00d: there is none of this name; there are gr00t"),
        ("dataset=bridge", "bridge"),
        ("announce=/dev/null/file", "cannot write announce=/dev/null/file"),
    ],
)
def test_bad_input_is_refused(run: Run, capsys: pytest.CaptureFixture[str], argument: str, complaint: str) -> None:
    assert run(*argument.split()) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error
