"""What a server counts, as Prometheus reads it: HTTP in a thread of its own, made by prometheus-client."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policy_server import ports
from policy_server.router import check_endpoint
from policy_server.tally import ANSWERED, EDGES, EXPIRED, RESET, SUPERSEDED, Snapshot, Tally, gpu_bytes
from policy_server.watching import Watcher
from vla.api import InputError, PolicySpec

log = logging.getLogger(__name__)

ADDRESS = re.compile(r"(?P<host>[^/\s]+):(?P<port>[0-9]+)")
INSTALL = "pip install 'cadence-vla[server]'"
FINE = (ANSWERED, RESET, SUPERSEDED, EXPIRED)  # the other outcomes are errors


def check_address(address: str, insecure: bool) -> tuple[str, int]:
    """Host and port of `host:port`, refused if other machines can reach it without consent.

    Raises:
        InputError: on another form, a port that does not exist, or an address beyond this machine without `insecure`;
            keys do not protect HTTP.
    """
    parts = ADDRESS.fullmatch(address)
    if parts is None:
        raise InputError(f"metrics is host:port, for example 127.0.0.1:9090, got {address!r}")
    port = ports.read_port(f"metrics={address}", parts["port"])
    try:
        check_endpoint(f"tcp://{address}", protected=False, insecure=insecure)
    except InputError:
        raise InputError(
            f"metrics={address} can be reached from other machines, and nothing on it is encrypted or authenticated, "
            "with or without keys; use 127.0.0.1:<port>, or say insecure=true on a network you trust"
        ) from None
    return parts["host"].strip("[]"), port


def check_free(address: str, insecure: bool) -> None:
    """Refuse an address as `check_address` does, and one that is taken or not this machine's.

    Raises:
        InputError: saying why.
    """
    ports.check_free(f"metrics={address}", *check_address(address, insecure))


class Exporter:
    """Answers `GET /metrics` with what a server counted, until it is closed; a context manager.

    Args:
        address: `host:port`; port 0 takes a free one, see `port` after entering.
        tally: what is counted.
        spec: of the policy.
        watchers: whose reports are shown.
        insecure: allow an address that other machines can reach.

    Attributes:
        port: that was taken.

    Raises:
        InputError: on an address that is none, is refused or taken, or without prometheus-client.
    """

    def __init__(
        self, address: str, tally: Tally, spec: PolicySpec, watchers: Sequence[Watcher] = (), insecure: bool = False
    ) -> None:
        self._host, self.port = check_address(address, insecure)
        self._tally, self._spec, self._watchers = tally, spec, watchers

    def __enter__(self) -> "Exporter":
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
        except ImportError as error:
            raise InputError(f"metrics needs prometheus-client: {INSTALL}") from error
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self)
        try:
            self._server, self._thread = start_http_server(self.port, self._host, registry)
        except OSError as error:
            raise InputError(f"cannot serve metrics at {self._host}:{self.port}: {error.strerror}") from error
        self.port = self._server.server_port
        log.info("metrics at http://%s:%d/metrics", self._host, self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Any]:
        """Every metric, as they are now."""
        seen = self._tally.snapshot()
        yield _info(self._spec)
        yield from _counters(seen)
        yield _stages(seen)
        yield from _gauges(seen)
        yield from _watchers([watcher.report() for watcher in self._watchers])


def _info(spec: PolicySpec) -> Any:
    from prometheus_client.core import InfoMetricFamily

    about = {"model": spec.model, "recipe": spec.recipe, "checkpoint": spec.checkpoint}
    return InfoMetricFamily("cadence_policy", "What is served", about)


def _counters(seen: Snapshot) -> Iterator[Any]:
    errors = {outcome: count for outcome, count in seen.outcomes.items() if outcome not in FINE}
    late = {"answered": seen.late, "refused": seen.outcomes.get(EXPIRED, 0)}
    yield _labelled("cadence_requests", "Requests by what became of them", "outcome", seen.outcomes)
    yield _labelled("cadence_errors", "Requests refused or failed, by error type", "type", errors)
    text = "Deadlines missed: refused before inference, or answered too late"
    yield _labelled("cadence_deadlines_missed", text, "how", late)
    replaced = {"": seen.outcomes.get(SUPERSEDED, 0)}
    yield _labelled(
        "cadence_observations_replaced", "Observations that a newer one of their session replaced", "", replaced
    )


def _labelled(name: str, text: str, label: str, values: Mapping[str, float], kind: str = "Counter") -> Any:
    from prometheus_client import core

    family = getattr(core, f"{kind}MetricFamily")(name, text, labels=[label] if label else [])
    for value, number in values.items():
        family.add_metric([value] if label else [], number)
    return family


def _stages(seen: Snapshot) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    text = "Time of each stage of answered requests; `server` is arrival to departure, `queue` the wait"
    family = HistogramMetricFamily("cadence_stage_seconds", text, labels=["stage"])
    for name, stage in seen.stages.items():
        total, buckets = 0, []
        for edge, count in zip(EDGES, stage.counts, strict=True):
            total += count
            buckets.append(("+Inf" if edge == EDGES[-1] else repr(edge / 1000), total))
        family.add_metric([name], buckets, stage.total / 1000)
    return family


def _gauges(seen: Snapshot) -> Iterator[Any]:
    values = {
        "cadence_sessions": ("Sessions that the policy may remember something of", seen.load.sessions),
        "cadence_requests_waiting": ("Requests that wait for the policy", seen.load.pending),
        "cadence_queue_age_seconds": ("Age of the request that has waited longest", (seen.queue_age_ms or 0) / 1000),
        "cadence_busy_seconds": ("How long the policy has been running what it runs", (seen.busy_ms or 0) / 1000),
        "cadence_uptime_seconds": ("Since the server began", seen.uptime),
    }
    for name, (text, value) in values.items():
        yield _labelled(name, text, "", {"": value}, "Gauge")
    gpu = gpu_bytes()
    if gpu is not None:
        yield _labelled("cadence_gpu_memory_bytes", "Memory that torch holds on the GPU", "kind", gpu, "Gauge")


def _watchers(reports: list[Mapping[str, Any]]) -> Iterator[Any]:
    for count in ("done", "dropped"):
        values = {str(report["name"]): report[count] for report in reports if count in report}
        yield _labelled(f"cadence_watcher_{count}", f"Answers that a recorder or stream has {count}", "watcher", values)
