"""openpi's websocket clients, at a port of their own.

The server speaks first: one binary frame with metadata. Then each binary frame is an observation, and its answer one
with `actions` and timings. A failure is a text frame, which the client raises. openpi's own server then hangs up; this
one stays, so that a client that catches the error may go on. Nothing says where an episode ends: a connection is a
session. `GET /healthz` answers 200 while the policy runs too. Messages are msgpack with `ndarray` arrays
(`policy_server.packing`). A request that came from a page in a browser is refused: any site could send it.

Source: Physical-Intelligence/openpi `websocket_policy_server.py`, `openpi_client/msgpack_numpy.py`.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from policy_server.arrays import IMAGE, MAX_MESSAGE_BYTES, Frame
from policy_server.checks import brief, require
from policy_server.dialect import Setup
from policy_server.naming import Defaults
from policy_server.packing import NDARRAY, pack, unpack
from policy_server.peers import Deliver, Dialect
from policy_server.ports import bare, check_free, read_port
from policy_server.router import LOOPBACK
from policy_server.wire import Message
from vla.api import InputError

log = logging.getLogger(__name__)
_knocks = logging.getLogger(f"{__name__}.connections")
_knocks.setLevel(logging.CRITICAL)  # the library writes a traceback for everyone who connects and does not speak HTTP

ENDPOINT = re.compile(r"ws://(?P<host>[^/]+):(?P<port>[0-9]+)/?")
MOST_CLIENTS = 256
PING, SILENCE = 20.0, 60.0  # [s] a client that does not answer a ping for so long is let go
FAREWELL = 2.0  # [s] that a client has to hang up when the server stops
STOPPING = "stopping: the server is stopping"


class OpenPi(Dialect):
    """Listens for openpi's clients.

    Attributes:
        endpoint: `ws://host:port`, with the port that was taken once it is open.

    Raises:
        InputError: on an endpoint of another form or one beyond this machine without `insecure`, or another option
            outside its range.
    """

    NAMES: ClassVar = Defaults("observation/{}", "observation/state", "actions", ("prompt",))
    OPTIONS: ClassVar[Mapping[str, Any]] = {
        "endpoint": "ws://127.0.0.1:8000",
        "channels_first": False,
        "metadata": None,
    }

    def __init__(self, setup: Setup) -> None:
        if list(setup.naming.actions) != [self.NAMES.actions]:
            raise InputError(f"openpi's clients read all actions under 'actions', got {list(setup.naming.actions)}")
        self.setup = setup
        self.endpoint = str(setup.options["endpoint"])
        self._host, self._port = _address(self.endpoint, setup.insecure)
        self.channels_first = setup.flag("channels_first")
        self._metadata = pack({**_metadata(setup), **setup.table("metadata")}, NDARRAY)
        self._thread: threading.Thread | None = None

    @classmethod
    def check(cls, options: Mapping[str, Any], insecure: bool) -> None:
        """The endpoint must be one, and free."""
        endpoint = str(options["endpoint"])
        host, port = _address(endpoint, insecure)
        check_free(endpoint, host, port)

    def open(self, deliver: Deliver, stop: Callable[[], None]) -> None:
        """Listen, in a thread of its own.

        Raises:
            InputError: if the port is taken or this machine does not have its address.
        """
        self._deliver = deliver
        self._numbers = count()
        self._waiting: set[Waiting] = set()
        self._closing = False
        self._loop = asyncio.new_event_loop()
        try:
            self._server = self._loop.run_until_complete(self._listen())
        except OSError as error:
            self._loop.close()
            raise InputError(f"cannot serve at {self.endpoint}: {error.strerror or error}") from None
        self.endpoint = f"ws://{self._host}:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name="policy-server-openpi", daemon=True)
        self._thread.start()
        log.info("openpi's clients are served at %s", self.endpoint)

    def close(self) -> None:
        """Send what is to be sent, hang up and end the thread."""
        if self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = None

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    async def _listen(self) -> Server:
        return await serve(
            self._serve_client,
            bare(self._host),
            self._port,
            compression=None,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=1,
            origins=[None],  # what a browser sends always has an origin
            ping_interval=PING,
            ping_timeout=SILENCE,
            close_timeout=FAREWELL,
            process_request=self._answer_http,
            logger=_knocks,
        )

    async def _hang_up(self) -> None:
        self._closing = True
        for waiting in self._waiting:
            waiting.answer(STOPPING)
        self._server.close()
        await self._server.wait_closed()

    def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if len(self._server.connections) >= MOST_CLIENTS:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_CLIENTS} clients are connected\n")
        return None

    async def _serve_client(self, connection: ServerConnection) -> None:
        """One client until it leaves, one request at a time: no reply says which request it belongs to."""
        session = f"openpi {next(self._numbers)}"
        with suppress(ConnectionClosed):
            await connection.send(self._metadata)
            step = count()
            async for data in connection:
                await connection.send(await self._ask(session, next(step), data))
        self._deliver(Waiting(self, session, 0), [], perf_counter())  # forget it

    async def _ask(self, session: str, step: int, data: Any) -> bytes | str:
        if self._closing:
            return STOPPING
        reply: asyncio.Future[bytes | str] = self._loop.create_future()
        waiting = Waiting(self, session, step, reply)
        self._waiting.add(waiting)
        self._deliver(waiting, [data], perf_counter())
        try:
            return await reply
        finally:
            self._waiting.discard(waiting)


@dataclass(eq=False)
class Waiting:
    """A client that waits for one answer; or, without a `reply`, one that has left.

    Attributes:
        dialect: whose client it is.
        session: the connection's.
        step: how many messages it sent before.
        reply: receives a binary or a text frame, in the thread of the connections.
    """

    dialect: OpenPi
    session: str
    step: int
    reply: "asyncio.Future[bytes | str] | None" = None
    _is_text: bool = field(default=False, init=False)

    @property
    def client(self) -> bytes:
        """Names the connection; ZeroMQ's own names that begin with 0 are shorter."""
        return b"\0" + self.session.encode()

    def decode(self, frames: Sequence[Frame]) -> Message:
        """The request.

        Raises:
            WireError: if it is no observation of this policy.
        """
        deadline = self.dialect.setup.deadline_ms
        if self.reply is None:
            return Message("reset", 1, self.session)
        require(not isinstance(frames[0], str), "an observation is a binary frame of msgpack, a text frame came")
        sent = unpack(frames[0]).value
        require(isinstance(sent, dict), f"an observation must be a map, got {brief(sent)}")
        if sent.get("endpoint") == "reset":  # as RoboArena's clients say it
            return Message("reset", 1, self.session, deadline)
        naming = self.dialect.setup.naming
        body = {
            "instruction": naming.instruction_in(sent),
            "step": self.step,
            "time": 0.0,
            "frozen": 0,
            "spec_id": None,
        }
        arrays = naming.arrays(sent)
        if self.dialect.channels_first:
            arrays = {
                name: _channels_last(array) if name.startswith(IMAGE) else array for name, array in arrays.items()
            }
        return Message("infer", 1, self.session, deadline, body=body, arrays=arrays)

    def encode(self, reply: Message) -> list[Frame]:
        """The reply: text for a failure and for a reset."""
        self._is_text = reply.kind != "infer"
        if reply.kind == "error":
            kind, text, hint = (reply.body[key] for key in ("type", "message", "hint"))
            return [f"{kind}: {text}{f' ({hint})' if hint else ''}".encode(errors="replace")]
        if self._is_text:
            return [b"reset successful"]
        naming = self.dialect.setup.naming
        return [pack({**naming.split(reply.arrays["actions"]), **_timing(reply.timing)}, NDARRAY)]

    def send(self, frames: list[Frame]) -> bool:
        """Hand the reply to the thread of the connections; whether somebody waits for it."""
        data = bytes(frames[0])
        return self.reply is None or self._hand_over(data.decode() if self._is_text else data)

    def answer(self, data: bytes | str) -> None:
        """End the waiting, once; only in the thread of the connections."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_result(data)

    def _hand_over(self, data: bytes | str) -> bool:
        assert self.reply is not None
        try:
            self.reply.get_loop().call_soon_threadsafe(self.answer, data)
        except RuntimeError:  # the connections are closed
            return False
        return True


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def _timing(timing: Mapping[str, float]) -> dict[str, Any]:
    """Milliseconds as openpi names them: around the policy, and in it."""
    waited = timing["wire_decode"] + timing["queue"]
    server = {"infer_ms": timing["server"] - waited, "queue_ms": timing["queue"], "decode_ms": timing["wire_decode"]}
    policy = {"policy_timing": {"infer_ms": timing["total"]}} if "total" in timing else {}
    return {"server_timing": server, **policy}


def _metadata(setup: Setup) -> dict[str, Any]:
    spec, naming = setup.spec, setup.naming
    return {
        "action_horizon": spec.horizon,
        "image_keys": list(naming.cameras.values()),
        "image_sizes": {naming.cameras[camera.name]: [camera.height, camera.width] for camera in spec.cameras},
        "state_keys": {name: [spec.state[place].name for place in places] for name, places in naming.state.items()},
        "prompt_key": naming.instruction[0],
        "action_names": [spec.actions[place].name for places in naming.actions.values() for place in places],
        "action_period": spec.period,
        "model": spec.model,
    }


def _address(endpoint: str, insecure: bool) -> tuple[str, int]:
    parts = ENDPOINT.fullmatch(endpoint)
    if parts is None:
        raise InputError(f"endpoint is ws://host:port, for example ws://127.0.0.1:8000, got {endpoint!r}")
    port = read_port(endpoint, parts["port"])
    if LOOPBACK.fullmatch(parts["host"]) is None and not insecure:
        raise InputError(
            f"{endpoint} can be reached from other machines, and a websocket is neither encrypted nor authenticated "
            "here; serve at ws://127.0.0.1:<port> behind a proxy or an SSH tunnel, or say insecure=true on a network "
            "you trust"
        )
    return parts["host"], port


DIALECT = OpenPi
