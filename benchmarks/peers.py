"""Other projects' policy servers and clients with an echo policy, written anew from their public wire formats.

    gr00t_legacy  REQ/REP, one msgpack frame, each array as an .npy file          Isaac-GR00T N1.5, N1.6, early N1.7
    gr00t_nd      the same with msgpack-numpy's maps                              Isaac-GR00T N1.7
    openpi        websocket without compression, msgpack with openpi's maps       openpi

Each peer's own way is kept: one thread receives, decodes, answers and encodes; the client does the same in turn.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any, Protocol

import msgpack
import numpy as np
import websockets.asyncio.server
import websockets.sync.client
import zmq

Pack = Callable[[Any], Any]


class Client(Protocol):
    """Asks a peer's server for actions and waits for them."""

    def infer(self, images: Mapping[str, Any], state: Any, instruction: str) -> Any: ...

    def close(self) -> None: ...


def _pack_npy(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    file = BytesIO()
    np.save(file, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def _unpack_npy(value: Any) -> Any:
    return np.load(BytesIO(value["as_npy"]), allow_pickle=False) if "__ndarray_class__" in value else value


def _pack_nd(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    data = value.data if value.flags["C_CONTIGUOUS"] else value.tobytes()
    return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": data}


def _unpack_nd(value: Any) -> Any:
    if b"nd" not in value:
        return value
    return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"type"]), shape=value[b"shape"])


def pack_openpi(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def unpack_openpi(value: Any) -> Any:
    if b"__ndarray__" not in value:
        return value
    return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=value[b"shape"])


FORMATS: dict[str, tuple[Pack, Pack]] = {"gr00t_legacy": (_pack_npy, _unpack_npy), "gr00t_nd": (_pack_nd, _unpack_nd)}


def _echo(state: Any, horizon: int) -> Any:
    return np.tile(np.asarray(state, np.float32).reshape(-1), (horizon, 1))


def serve_gr00t(name: str, horizon: int, announce: Connection) -> None:
    """In the server's process: one REP socket, one request at a time, until the process is ended."""
    pack, unpack = FORMATS[name]
    socket = zmq.Context().socket(zmq.REP)
    announce.send(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
    while True:
        seen = msgpack.unpackb(socket.recv(), object_hook=unpack)["data"]["observation"]
        actions = {"joints": _echo(seen["state"]["joints"], horizon)[None]}
        packed = msgpack.packb((actions, {}), default=pack)
        assert packed is not None
        socket.send(packed)


class Gr00tClient:
    """A REQ socket."""

    def __init__(self, name: str, endpoint: str) -> None:
        self._pack, self._unpack = FORMATS[name]
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.connect(endpoint)

    def infer(self, images: Mapping[str, Any], state: Any, instruction: str) -> Any:
        """The nested observation of N1.6 and later, with sizes for one robot and one time."""
        video = {name: image[None, None] for name, image in images.items()}
        seen = {"video": video, "state": {"joints": state[None, None]}, "language": {"task": [[instruction]]}}
        request = {"endpoint": "get_action", "data": {"observation": seen, "options": None}}
        packed = msgpack.packb(request, default=self._pack)
        assert packed is not None
        self._socket.send(packed)
        return msgpack.unpackb(self._socket.recv(), object_hook=self._unpack)[0]["joints"][0]

    def close(self) -> None:
        """Disconnect."""
        self._context.destroy(linger=0)


def serve_openpi(name: str, horizon: int, announce: Connection) -> None:
    """In the server's process: one event loop, until the process is ended."""

    async def answer(connection: websockets.asyncio.server.ServerConnection) -> None:
        packer = msgpack.Packer(default=pack_openpi)
        await connection.send(packer.pack({}))
        async for data in connection:
            assert isinstance(data, bytes)
            seen = msgpack.unpackb(data, object_hook=unpack_openpi)
            await connection.send(packer.pack({"actions": _echo(seen["observation/state"], horizon)}))

    async def run() -> None:
        options: dict[str, Any] = {"compression": None, "max_size": None}
        async with websockets.asyncio.server.serve(answer, "127.0.0.1", 0, **options) as server:
            announce.send(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await server.serve_forever()

    asyncio.run(run())


class OpenPiClient:
    """A websocket."""

    def __init__(self, name: str, endpoint: str) -> None:
        self._packer = msgpack.Packer(default=pack_openpi)
        self._stack = ExitStack()
        connecting = websockets.sync.client.connect(endpoint, compression=None, max_size=None)
        self._socket = self._stack.enter_context(connecting)
        self._socket.recv()

    def infer(self, images: Mapping[str, Any], state: Any, instruction: str) -> Any:
        """The flat observation of openpi's LIBERO and DROID clients."""
        named = {f"observation/{name}": image for name, image in images.items()}
        self._socket.send(self._packer.pack({**named, "observation/state": state, "prompt": instruction}))
        reply = self._socket.recv()
        assert isinstance(reply, bytes)
        return msgpack.unpackb(reply, object_hook=unpack_openpi)["actions"]

    def close(self) -> None:
        """Disconnect."""
        self._stack.close()


Serve = Callable[[str, int, Connection], None]
PEERS: dict[str, tuple[Serve, Callable[[str, str], Client]]] = {
    "gr00t_legacy": (serve_gr00t, Gr00tClient),
    "gr00t_nd": (serve_gr00t, Gr00tClient),
    "openpi": (serve_openpi, OpenPiClient),
}
