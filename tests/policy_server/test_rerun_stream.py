"""The stream to Rerun: what it needs is said clearly, and what is served arrives in the file."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from policy_server import rerun_stream
from policy_server.client import RemotePolicy
from policy_server.rerun_stream import RerunStream
from policy_server.server import PolicyServer
from tests.policies import SPEC, Digest, observation
from vla.api import InputError


def test_another_target_is_refused() -> None:
    with pytest.raises(InputError, match=r"rerun\+http://127.0.0.1:9876/proxy of a running viewer, or a file \*.rrd"):
        RerunStream("viewer", SPEC)


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerun_stream, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs rerun-sdk: pip install 'cadence-vla\[rerun\]'"):
        RerunStream("served.rrd", SPEC)


@pytest.mark.skipif(find_spec("rerun") is None, reason="rerun-sdk is not installed")
def test_what_is_served_is_streamed(tmp_path: Path) -> None:
    stream = RerunStream(str(tmp_path / "served.rrd"), SPEC)
    with PolicyServer(Digest(), watchers=[stream]) as server, RemotePolicy(server.endpoint, timeout=20.0) as robot:
        robot.infer(observation(session="arm/1"))
        robot.reset("arm/1")
    stream.close()
    assert stream.report() == {"name": "rerun", "done": 2, "dropped": 0, "waiting": 0, "failed": ""}
    assert b"front" in (tmp_path / "served.rrd").read_bytes()
    with pytest.raises(InputError, match="cannot stream to rerun="):
        RerunStream("/nowhere/served.rrd", SPEC)
