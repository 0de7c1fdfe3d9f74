"""What a command's keys ask to watch a server with: its log, its metrics, a recorder, a stream to Rerun."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from policy_server import logs, metrics, rerun_stream
from policy_server.server import PolicyServer
from policy_server.watching import Watcher
from vla.api import InputError, PolicySpec

INSTALL = "pip install 'cadence-vla[data,sim]'"
KEYS = ("metrics", "record", "rerun")


@dataclass(frozen=True)
class Observability:
    """How a server is watched.

    Attributes:
        log: `text` or `json`.
        metrics: `host:port` for Prometheus, or None.
        record: folder for a LeRobotDataset of what is served, or None.
        rerun: viewer or file, or None.
        insecure: allow metrics at an address that other machines can reach.

    Raises:
        InputError: on a value that cannot be used.
    """

    log: str = "text"
    metrics: str | None = None
    record: str | None = None
    rerun: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.log not in logs.FORMATS:
            raise InputError(f"log must be one of {', '.join(logs.FORMATS)}, got {self.log!r}")
        if self.metrics is not None:
            metrics.check_address(self.metrics, self.insecure)

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> "Observability":
        """From the keys of `configs/serve.yaml`."""
        chosen = {key: None if options[key] is None else str(options[key]) for key in KEYS}
        return cls(log=str(options["log"]), insecure=options["insecure"] is True, **chosen)

    def check(self) -> None:
        """Refuse, before the policy is loaded, what can be refused without it.

        Raises:
            InputError: if a port is taken, a folder cannot be recorded to, or something is not installed.
        """
        if self.metrics is not None:
            metrics.check_free(self.metrics, self.insecure)
        if self.record is not None:
            _recorder(self.record).check(self.record)
        if self.rerun is not None:
            rerun_stream.check(self.rerun)

    @contextmanager
    def watchers(self, spec: PolicySpec) -> Iterator[Sequence[Watcher]]:
        """The recorder and the stream; closed at the end, which must be the server's end too.

        Raises:
            InputError: if one of them cannot begin.
        """
        opened: list[Watcher] = []
        with ExitStack() as closing:
            if self.record is not None:
                opened.append(_recorder(self.record).Recorder(self.record, spec))
                closing.callback(opened[-1].close)
            if self.rerun is not None:
                opened.append(rerun_stream.RerunStream(self.rerun, spec))
                closing.callback(opened[-1].close)
            yield opened

    def exporter(
        self, server: PolicyServer, spec: PolicySpec, watchers: Sequence[Watcher]
    ) -> AbstractContextManager[object]:
        """Serves the metrics to Prometheus, if asked to.

        Raises:
            InputError: on entering, if the address is taken, or without prometheus-client.
        """
        if self.metrics is None:
            return nullcontext()
        return metrics.Exporter(self.metrics, server.tally, spec, watchers, self.insecure)


def _recorder(folder: str) -> Any:
    try:
        from policy_server import recorder  # here: others need not install what it needs
    except ImportError as error:
        raise InputError(f"record={folder} needs {error.name}: {INSTALL}") from error
    return recorder
