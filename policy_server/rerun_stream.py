"""Streams what is served to a Rerun viewer, live or into a file: images, state and actions of every session."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from policy_server.watching import Answered, Behind
from vla.api import InputError, PolicySpec, Quantity

INSTALL = "pip install 'cadence-vla[rerun]' (Python 3.11 or newer)"
ROOM = 32 * 2**20  # bytes of images that may wait for a slow viewer
FILE, VIEWER = ".rrd", "rerun+http"


def check(target: str) -> None:
    """Refuse what is no target, and any without rerun-sdk.

    Raises:
        InputError: saying what is.
    """
    if not target.startswith(VIEWER) and not target.endswith(FILE):
        example = f"{VIEWER}://127.0.0.1:9876/proxy"
        raise InputError(f"rerun is {example} of a running viewer, or a file *{FILE}; got {target!r}")
    if find_spec("rerun") is None:
        raise InputError(f"rerun={target} needs rerun-sdk: {INSTALL}")


class RerunStream:
    """A watcher that streams; all work is done in a thread of its own.

    Args:
        target: `rerun+http://host:port/proxy` of a running viewer, or a file that ends in `.rrd`.
        spec: of the policy.

    Raises:
        InputError: on another target, a file that cannot be written, or without rerun-sdk.
    """

    def __init__(self, target: str, spec: PolicySpec) -> None:
        check(target)
        self._spec = spec
        self._rerun: Any = import_module("rerun")
        self._stream = self._opened(target)
        self._answers = 0
        self._behind = Behind("rerun", self._work, room=ROOM)

    def saw(self, event: Answered) -> None:
        """Let it be streamed; returns at once."""
        self._behind.saw(event)

    def report(self) -> dict[str, Any]:
        """What was streamed and dropped."""
        return self._behind.report()

    def close(self) -> None:
        """Stream what waits."""
        self._behind.close()
        self._stream.disconnect()

    def _work(self, event: Answered | None) -> None:
        if event is None or event.observation is None or event.chunk is None:
            return
        seen, stream, rerun = event.observation, self._stream, self._rerun
        stream.set_time("answer", sequence=self._answers)
        stream.set_time("step", sequence=seen.step)
        self._answers += 1
        for camera, image in seen.images.items():
            stream.log([event.session, "camera", camera], rerun.Image(image))
        stream.log([event.session, "instruction"], rerun.TextDocument(seen.instruction))
        self._plot([event.session, "action"], self._spec.actions, event.chunk.actions[0])
        if seen.state is not None:
            self._plot([event.session, "state"], self._spec.state, seen.state)

    def _plot(self, path: list[str], quantities: Iterable[Quantity], values: Iterable[Any]) -> None:
        for quantity, value in zip(quantities, values, strict=False):
            self._stream.log([*path, f"{quantity.name} [{quantity.unit}]"], self._rerun.Scalars(float(value)))

    def _opened(self, target: str) -> Any:
        stream = self._rerun.RecordingStream("cadence")
        try:
            stream.save(target) if target.endswith(FILE) else stream.connect_grpc(target)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"cannot stream to rerun={target}: {error}") from error
        return stream
