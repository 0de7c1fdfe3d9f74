"""Who may talk to a server, what a stranger on the line sees, and where the keys lie."""

import os
import re
import socket
import stat
import threading
from pathlib import Path

import pytest
import zmq
import zmq.auth

from policy_server.client import PolicyUnavailable, RemotePolicy
from policy_server.door import DOMAIN, ZAP, Doorkeeper
from policy_server.keys import main
from policy_server.security import (
    ClientKeys,
    ServerKeys,
    client_keys,
    protect_client,
    read_allowed,
    read_pair,
    server_keys,
    write_pair,
)
from policy_server.server import PolicyServer
from tests.policies import SPEC, Digest, observation
from tests.policy_server.sockets import TIMEOUT_MS
from vla.api import InputError


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """server/ and robot/ with a pair each, clients/ with the robot's public key, stranger/ with a pair nobody knows."""
    for name in ("server", "robot", "stranger"):
        write_pair(tmp_path / name, name)
    allow(tmp_path, "robot")
    return tmp_path


def allow(keys: Path, name: str) -> None:
    (keys / "clients").mkdir(exist_ok=True)
    (keys / "clients" / f"{name}.key").write_text((keys / name / f"{name}.key").read_text())


def of_server(keys: Path) -> ServerKeys:
    return server_keys(keys / "server" / "server.key_secret", keys / "clients")


def of_client(keys: Path, name: str = "robot", server: str = "server") -> ClientKeys:
    return client_keys(keys / name / f"{name}.key_secret", keys / server / f"{server}.key")


def assert_handshake_fails(endpoint: str, keys: ClientKeys | None, event: int) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        if keys is not None:
            protect_client(dealer, keys)
        monitor = dealer.get_monitor_socket(event)
        dealer.connect(endpoint)
        assert monitor.poll(TIMEOUT_MS)
        dealer.disable_monitor()
        monitor.close()


def test_a_known_client_is_served_on_any_address(keys: Path) -> None:
    with PolicyServer(Digest(), "tcp://*:0", keys=of_server(keys)) as server:
        endpoint = f"tcp://127.0.0.1:{server.endpoint.rpartition(':')[2]}"
        with RemotePolicy(endpoint, timeout=20.0, keys=of_client(keys)) as remote:
            assert remote.spec == SPEC
            got = remote.infer(observation()).actions
            assert got.tobytes() == Digest().infer(observation()).actions.tobytes()


def test_an_unknown_key_is_turned_away_and_logged(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    with PolicyServer(Digest(), keys=of_server(keys)) as server:
        assert_handshake_fails(server.endpoint, of_client(keys, "stranger"), zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        with pytest.raises(PolicyUnavailable, match="both sides' keys"):
            RemotePolicy(server.endpoint, timeout=0.1, keys=of_client(keys, "stranger"))
        with RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys)) as robot:
            assert robot.health()["served"] == 0
    assert "turned away a client with an unknown key" in caplog.text
    assert f"{of_client(keys, 'stranger').pair.public.decode()!a} from '127.0.0.1'" in caplog.text


def test_a_client_without_keys_is_turned_away_and_logged(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It may hang up before the server knows why."""
    with PolicyServer(Digest(), keys=of_server(keys)) as server:
        assert_handshake_fails(server.endpoint, None, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        with RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys)) as robot:
            while "turned away a client" not in caplog.text:
                assert robot.health()["served"] == 0
    assert re.search("without keys: it needs a key pair|that hung up: it has no keys", caplog.text)


def test_a_client_does_not_talk_to_a_server_with_another_key(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    with PolicyServer(Digest(), keys=of_server(keys)) as server:
        other = of_client(keys, server="stranger")
        with pytest.raises(PolicyUnavailable):
            RemotePolicy(server.endpoint, timeout=0.1, keys=other)
        with RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys)) as robot:
            assert robot.health()["served"] == 0
    assert "turned away a client with another server's public key" in caplog.text


def test_a_robot_is_added_and_removed_while_the_server_runs(keys: Path) -> None:
    with PolicyServer(Digest(), keys=of_server(keys)) as server:
        allow(keys, "stranger")
        RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys, "stranger")).close()
        (keys / "clients" / "stranger.key").unlink()
        assert_handshake_fails(server.endpoint, of_client(keys, "stranger"), zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys)).close()


def test_a_removed_robot_stays_out_while_another_file_is_damaged(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    allow(keys, "stranger")
    with PolicyServer(Digest(), keys=of_server(keys)) as server:
        RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys, "stranger")).close()
        (keys / "clients" / "broken.key").write_text("?")
        (keys / "clients" / "stranger.key").unlink()
        assert_handshake_fails(server.endpoint, of_client(keys, "stranger"), zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys)).close()
    assert f"skipped a client's public key: {keys / 'clients' / 'broken.key'} needs exactly one" in caplog.text


def test_nobody_gets_in_while_the_folder_is_gone(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    with PolicyServer(Digest(), keys=of_server(keys)) as server:
        (keys / "clients").rename(keys / "moved")
        assert_handshake_fails(server.endpoint, of_client(keys), zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        (keys / "moved").rename(keys / "clients")
        RemotePolicy(server.endpoint, timeout=20.0, keys=of_client(keys)).close()
    assert f"there is no folder {keys / 'clients'}" in caplog.text


def test_nothing_readable_crosses_the_line(keys: Path) -> None:
    """A proxy between client and server sees neither instruction nor image."""
    seen = bytearray()

    def forward(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            seen.extend(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    secret = observation(instruction="open the safe in the cellar")
    with PolicyServer(Digest(), keys=of_server(keys)) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        proxied = f"tcp://127.0.0.1:{listener.getsockname()[1]}"

        def proxy() -> None:
            port = int(server.endpoint.rpartition(":")[2])
            with listener.accept()[0] as near, socket.create_connection(("127.0.0.1", port)) as far:
                back = threading.Thread(target=forward, args=(far, near))
                back.start()
                forward(near, far)
                back.join()

        thread = threading.Thread(target=proxy)
        thread.start()
        with RemotePolicy(proxied, timeout=20.0, keys=of_client(keys)) as remote:
            remote.infer(secret)
        thread.join()
    assert len(seen) > 1000
    for readable in (b"safe", b"infer", secret.images["front"].tobytes(), b"version"):
        assert readable not in bytes(seen)


def test_secret_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    public, secret = write_pair(tmp_path / "keys", "robot")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert "secret" not in public.read_text()
    pair = read_pair(secret)
    assert pair.secret.decode() not in repr(pair)
    secret.chmod(0o640)
    with pytest.raises(InputError, match=f"others than its owner: chmod 600 {secret}"):
        read_pair(secret)


def test_key_files_are_pyzmq_certificates(tmp_path: Path) -> None:
    public, secret = write_pair(tmp_path, "robot")
    ours = read_pair(secret)
    assert zmq.auth.load_certificate(secret) == (ours.public, ours.secret)
    assert zmq.auth.load_certificate(public) == (ours.public, None)
    theirs_public, theirs_secret = zmq.auth.create_certificates(tmp_path, "theirs")
    os.chmod(theirs_secret, 0o600)
    assert read_pair(Path(theirs_secret)).public == zmq.auth.load_certificate(theirs_public)[0]


def test_every_pair_is_another(tmp_path: Path) -> None:
    pairs = [read_pair(write_pair(tmp_path, name)[1]) for name in "abc"]
    assert len({pair.secret for pair in pairs}) == 3
    assert read_allowed(tmp_path) == ({pair.public: name for pair, name in zip(pairs, "abc", strict=True)}, [])


BROKEN = {
    "nothing": "",
    "no secret": 'curve\n    public-key = "' + "a" * 40 + '"\n',
    "a short key": 'public-key = "abc"\nsecret-key = "abc"\n',
    "two keys": ('public-key = "' + "a" * 40 + '"\n') * 2,
    "what is not Z85": 'public-key = "' + "~" * 40 + '"\n',
    "what is not ASCII": 'public-key = "' + "é" * 40 + '"\n',
}


@pytest.mark.parametrize("name", BROKEN)
def test_damaged_key_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "robot.key_secret"
    path.write_text(BROKEN[name])
    path.chmod(0o600)
    with pytest.raises(InputError, match="cadence-keys writes such files"):
        read_pair(path)


def test_a_public_key_where_a_secret_one_is_needed_is_named(tmp_path: Path) -> None:
    public, _ = write_pair(tmp_path, "robot")
    with pytest.raises(InputError, match=r"robot\.key holds no secret: name the \*\.key_secret file"):
        read_pair(public)


def test_missing_files_and_empty_lists_are_named(keys: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the key file /nowhere"):
        read_pair(Path("/nowhere"))
    with pytest.raises(InputError, match="there is no folder /nowhere"):
        server_keys(keys / "server" / "server.key_secret", "/nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no public key \(\*\.key\): nobody could connect"):
        server_keys(keys / "server" / "server.key_secret", tmp_path / "empty")


def test_the_command_makes_pairs_and_overwrites_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["server", "robot-1", "--out", str(tmp_path)])
    assert end.value.code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("robot-1.key", "robot-1.key_secret", "server.key", "server.key_secret")
    ]
    before = read_pair(tmp_path / "server.key_secret")
    with pytest.raises(SystemExit) as end:
        main(["server", "--out", str(tmp_path)])
    assert end.value.code == 2
    assert "server.key_secret exists already" in capsys.readouterr().err
    assert read_pair(tmp_path / "server.key_secret") == before


@pytest.mark.parametrize("name", ["../evil", "", "a/b", "-rf", "x" * 65])
def test_names_of_keys_are_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="a key's name is"):
        write_pair(tmp_path, name)


def test_the_log_says_little_about_many_strangers(keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.REQ) as asking:
        door = Doorkeeper(router, keys / "clients", clock=lambda: now[0])
        asking.connect(ZAP)
        for time in (100.0, 100.2, 100.4, 100.9, 101.0):
            now[0] = time
            asking.send_multipart([b"1.0", b"1", DOMAIN, b"192.0.2.7", b"", b"CURVE", bytes(32)])
            door.look()
            assert asking.recv_multipart()[2] == b"400"
        door.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[1].endswith("from '192.0.2.7' (4 times since the last line)")
