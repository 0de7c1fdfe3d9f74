"""What a server says about itself: over the wire and to Prometheus, also while the policy runs."""

from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from policy_server.client import RemotePolicy
from policy_server.metrics import Exporter, check_address
from policy_server.server import PolicyServer
from policy_server.tally import EDGES, MOST_SESSIONS, MOST_STAGES, OTHER, RECENT, Tally
from tests.policies import SPEC, Gated, observation
from tests.policy_server.sockets import Raw, infer
from vla.api import InputError

PATIENCE = 20.0


@pytest.fixture
def exporter(server: PolicyServer) -> Iterator[Exporter]:
    with Exporter("127.0.0.1:0", server.tally, SPEC) as running:
        yield running


def scraped(exporter: Exporter) -> dict[tuple[str, ...], float]:
    """(sample name, label values...) -> value."""
    with urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=PATIENCE) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_every_outcome_is_counted_once_while_the_policy_runs(
    raw: Raw, gated: Gated, server: PolicyServer, exporter: Exporter
) -> None:
    raw.send(infer(1, session="a"))
    assert gated.begun.acquire(timeout=PATIENCE)
    raw.send(infer(2, session="b"))
    raw.send(infer(3, session="b"))  # replaces the second
    raw.send(infer(4, deadline_ms=1e-6, session="c"))
    assert raw.receive().seq == 2
    with RemotePolicy(server.endpoint, timeout=PATIENCE) as remote:
        busy = remote.metrics()  # answered although the policy runs
        assert (busy["pending"], busy["outcomes"]) == (2, {"superseded": 1})
        assert busy["busy_ms"] >= 0
        assert busy["queue_age_ms"] >= 0
        assert scraped(exporter)["cadence_requests_waiting",] == 2
        gated.gate.release(10)
        assert {raw.receive().seq for _ in range(3)} == {1, 3, 4}
        idle = remote.metrics()
    assert idle["outcomes"] == {"superseded": 1, "expired": 1, "answered": 2}
    assert (idle["pending"], idle["busy_ms"], idle["queue_age_ms"], idle["sessions"]) == (0, None, None, 2)
    assert [robot[:2] for robot in idle["robots"]] == [["b", 1], ["a", 1]]
    assert {"queue", "server", "wire_decode", "total"} <= set(idle["stages"])
    samples = scraped(exporter)
    assert samples["cadence_requests_total", "answered"] == 2
    assert samples["cadence_deadlines_missed_total", "refused"] == 1
    assert samples["cadence_observations_replaced_total",] == 1
    assert samples["cadence_stage_seconds_count", "server"] == 2
    assert samples["cadence_sessions",] == 2
    assert samples["process_resident_memory_bytes",] > 0


def test_errors_are_counted_by_type(plain: Raw, digest_server: PolicyServer) -> None:
    for seq, instruction in enumerate(("refuse", "fail", "fail"), start=1):
        assert plain.ask(infer(seq, instruction=instruction)).kind == "error"
    plain.socket.send_multipart([b"", b"not a header"])
    assert plain.receive().kind == "error"
    with Exporter("127.0.0.1:0", digest_server.tally, SPEC) as exporter:
        samples = scraped(exporter)
    found = {labels[0]: value for (name, *labels), value in samples.items() if name == "cadence_errors_total"}
    assert found == {"input": 1, "internal": 2, "malformed": 1}


def test_an_answer_after_its_deadline_is_counted_as_late() -> None:
    tally = Tally()
    for deadline in (None, 10.0, 9.9):
        tally.answered("s", {"server": 10.0}, deadline, 0.0)
    assert tally.snapshot().late == 1


def test_the_tally_is_bounded_whatever_clients_and_policies_invent() -> None:
    tally = Tally()
    for number in range(2 * MOST_SESSIONS):
        tally.answered(f"{number}" + 200 * "\U0001f916", {"server": 1.0, f"stage {number}": 2.0}, None, float(number))
    seen = tally.snapshot()
    assert len(seen.sessions) == MOST_SESSIONS
    assert len(seen.stages) == MOST_STAGES + 1
    assert sum(seen.stages[OTHER].counts) == 2 * MOST_SESSIONS - MOST_STAGES + 1
    assert len(seen.stages["server"].recent) == RECENT
    assert sum(seen.stages["server"].counts) == 2 * MOST_SESSIONS


def test_the_largest_report_fits_into_a_reply() -> None:
    from policy_server.wire import MAX_HEADER_BYTES, Message, encode

    tally = Tally()
    for number in range(MOST_SESSIONS):
        stages = {"server": 123456.789, f"{number % MOST_STAGES} with quite a long name": 123456.789}
        tally.answered(f"{number}" + 250 * "\U0001f916", stages, None, 123456.789)
    report: dict[str, Any] = {"name": "recorder", "failed": 300 * "\U0001f916"}
    (header,) = encode(Message("metrics", 1, body=tally.snapshot().body([report, report])))
    assert len(header) <= MAX_HEADER_BYTES


def test_histogram_edges_hold_what_is_not_above_them() -> None:
    tally = Tally()
    for edge in EDGES[:-1]:
        tally.answered("s", {"server": edge}, None, 0.0)
    assert tally.snapshot().stages["server"].counts == [1] * (len(EDGES) - 1) + [0]


@pytest.mark.parametrize("address", ["0.0.0.0:9090", "192.168.1.2:9090", "[::]:9090"])
def test_metrics_beyond_this_machine_need_consent(address: str) -> None:
    with pytest.raises(InputError, match="insecure=true"):
        check_address(address, insecure=False)
    assert check_address(address, insecure=True)[1] == 9090


@pytest.mark.parametrize("address", ["9090", "localhost", "http://localhost:9090", "localhost:http"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(InputError, match="host:port"):
        check_address(address, insecure=False)


def test_a_taken_port_is_named(exporter: Exporter) -> None:
    with pytest.raises(InputError, match="cannot serve metrics"), Exporter(f"127.0.0.1:{exporter.port}", Tally(), SPEC):
        pass


def test_the_model_is_named(exporter: Exporter) -> None:
    labels = next(labels for (name, *labels) in scraped(exporter) if name == "cadence_policy_info")
    assert set(labels) == {SPEC.model, SPEC.recipe, SPEC.checkpoint}


def test_memory_on_a_gpu_is_asked_of_torch_only_where_torch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from policy_server import tally

    monkeypatch.setattr(tally.sys, "modules", {})
    assert tally.gpu_bytes() is None


def test_remote_metrics_are_those_of_the_wire(digest_server: PolicyServer) -> None:
    with RemotePolicy(digest_server.endpoint, timeout=PATIENCE) as remote:
        remote.infer(observation())
        remote.reset("default")
        assert remote.metrics()["outcomes"] == {"answered": 1, "reset": 1}
