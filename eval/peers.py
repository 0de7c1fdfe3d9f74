"""Policies behind other projects' servers, so that they can be scored here: GR00T's ZeroMQ and openpi's websocket.

What they call our cameras, state and actions is the same YAML set-up that serves their clients (`configs/dialects/`):
it maps names both ways, and numbers where it says so (`units`: a factor and an offset for each, which is enough for
centimetres, or a gripper that closes at 1). How rotations are written, and the frame of motions, must be the same.

Sources: NVIDIA/Isaac-GR00T `gr00t/policy/server_client.py`; Physical-Intelligence/openpi `websocket_client_policy.py`.
"""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policy_server.checks import WireError
from policy_server.dialect import Names, read_names
from policy_server.packing import ND, NDARRAY, NPY, pack, unpack
from vla.api import ActionChunk, ActionError, InputError, Observation, PolicySpec

GENERATIONS = {"n1.5": (True, NPY), "n1.6": (False, NPY), "n1.7": (False, ND)}  # flat observations, arrays


class PeerError(RuntimeError):
    """The other server refused or answered something that is no answer; the message holds its words."""


class Peer(Protocol):
    """One connection to another project's server."""

    def horizon(self) -> int | None:
        """Rows of a chunk, if the server says."""
        ...

    def reset(self) -> None: ...

    def ask(self, observation: Observation) -> Mapping[str, Any]:
        """The server's name -> actions."""
        ...

    def close(self) -> None: ...


class PeerPolicy:
    """Another project's policy server as a Policy; close it after use.

    Args:
        endpoint: `tcp://host:port` of a GR00T server, `ws://host:port` of an openpi server.
        setup: a name of `configs/dialects/`, or the path of a YAML file of one's own.
        robot: what the robot sees, tells and does; its horizon is that of chunks whose server does not say.
        timeout: [s] for one answer.

    Raises:
        InputError: if the set-up does not fit the robot, or the endpoint is not of its kind.
        PeerError: if the server cannot be reached.
    """

    def __init__(self, endpoint: str, setup: str, robot: PolicySpec, timeout: float) -> None:
        self._names = read_names(setup, robot)
        kind = _KINDS.get(self._names.dialect)
        if kind is None:
            raise InputError(
                f"servers of dialect {self._names.dialect} cannot be asked; those can: {', '.join(_KINDS)}"
            )
        self._peer: Peer = kind(endpoint, self._names, timeout)
        try:
            horizon = self._peer.horizon() or robot.horizon
        except TimeoutError as error:
            self._peer.close()
            raise PeerError(f"there is no {self._names.dialect} server: {error}") from error
        self.spec = replace(robot, model=self._names.dialect, horizon=horizon)

    def infer(self, observation: Observation) -> ActionChunk:
        """Ask and wait.

        Raises:
            TimeoutError: if there is no answer in time.
            PeerError: if the server refuses.
            ActionError: if its actions are not those of the robot.
        """
        actions = self._gathered(self._peer.ask(observation))
        return ActionChunk(actions, self.spec.period)

    def reset(self, session: str) -> None:
        """Tell the server to forget, where its protocol can."""
        self._peer.reset()

    def close(self) -> None:
        """Disconnect."""
        self._peer.close()

    def _gathered(self, answer: Mapping[str, Any]) -> NDArray[np.float32]:
        """(rows, A) in the robot's order and units."""
        columns: dict[int, NDArray[Any]] = {}
        for name, places in self._names.naming.actions.items():
            part = answer.get(name)
            if not isinstance(part, np.ndarray) or part.size % len(places) or not part.size:
                got = f"{part.dtype} {part.shape}" if isinstance(part, np.ndarray) else type(part).__name__
                raise ActionError(
                    f"the server must answer {name} as (rows, {len(places)}), got {got}; it answers {[*answer]}"
                )
            columns |= zip(places, part.reshape(-1, len(places)).T, strict=True)
        rows = {len(column) for column in columns.values()}
        if len(rows) != 1:
            raise ActionError(f"the server's actions have different numbers of rows: {sorted(rows)}")
        actions = np.stack([columns[place] for place in sorted(columns)], axis=1).astype(np.float32)
        units = self._names.naming.action_units
        return actions if units is None else units.ours(actions)


class Gr00tPeer:
    """A REQ socket; the set-up's `assume` says which generation the server is."""

    def __init__(self, endpoint: str, names: Names, timeout: float) -> None:
        import zmq

        if not endpoint.startswith("tcp://"):
            raise InputError(f"a GR00T server is at endpoint=tcp://host:port, got {endpoint!r}")
        self._zmq, self._endpoint, self._naming = zmq, endpoint, names.naming
        self._milliseconds = round(1000 * timeout)
        generation = names.options["assume"]
        if generation not in GENERATIONS:
            raise InputError(f"assume must be one of {', '.join(GENERATIONS)}; got {generation!r}")
        self._flat, self._encoding = GENERATIONS[generation]
        self._context = zmq.Context()
        self._socket = self._connected()

    def horizon(self) -> int | None:
        config = self._call("get_modality_config")
        action = config.get("action") if isinstance(config, dict) else None
        plain = action.get("as_json") if isinstance(action, dict) else None
        return len(plain["delta_indices"]) if isinstance(plain, dict) and plain.get("delta_indices") else None

    def reset(self) -> None:
        if not self._flat:  # N1.5 has no such endpoint
            self._call("reset", {"options": None})

    def ask(self, observation: Observation) -> Mapping[str, Any]:
        naming = self._naming
        images = {name: observation.images[camera] for camera, name in naming.cameras.items()}
        state = {} if observation.state is None else naming.numbers(observation.state)
        if self._flat:
            words = next((name for name in naming.instruction if name.startswith("annotation")), naming.instruction[0])
            named = {f"video.{name}": image[None] for name, image in images.items()}
            named |= {f"state.{name}": numbers[None] for name, numbers in state.items()}
            actions = self._call("get_action", {**named, words: [observation.instruction]})
            return {name.removeprefix("action."): part for name, part in _map(actions).items()}
        nested = {
            "video": {name: image[None, None] for name, image in images.items()},
            "state": {name: numbers[None, None] for name, numbers in state.items()},
            "language": {naming.instruction[0]: [[observation.instruction]]},
        }
        actions = self._call("get_action", {"observation": nested, "options": None})
        return _map(actions[0] if isinstance(actions, list) and actions else actions)

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()

    def _call(self, endpoint: str, data: Any = None) -> Any:
        request = {"endpoint": endpoint} | ({} if data is None else {"data": data})
        self._socket.send(pack(request, self._encoding))
        try:
            reply = self._socket.recv()
        except self._zmq.Again:
            self._socket.close(linger=0)  # a REQ socket that waits for an answer can send nothing more
            self._socket = self._connected()
            raise TimeoutError(f"{self._endpoint} did not answer {endpoint} in {self._milliseconds} ms") from None
        value = _unpacked(reply)
        if isinstance(value, dict) and "error" in value:
            raise PeerError(f"{self._endpoint} answered {endpoint}: {value['error']}")
        return value

    def _connected(self) -> Any:
        socket = self._context.socket(self._zmq.REQ)
        socket.setsockopt(self._zmq.RCVTIMEO, self._milliseconds)
        socket.setsockopt(self._zmq.SNDTIMEO, self._milliseconds)
        socket.connect(self._endpoint)
        return socket


class OpenPiPeer:
    """A websocket, which is a session: a reset connects anew."""

    def __init__(self, endpoint: str, names: Names, timeout: float) -> None:
        if not endpoint.startswith(("ws://", "wss://")):
            raise InputError(f"an openpi server is at endpoint=ws://host:port, got {endpoint!r}")
        self._endpoint, self._naming, self._timeout = endpoint, names.naming, timeout
        self._channels_first = names.options["channels_first"] is True
        self._open = ExitStack()
        self._socket, self._metadata = self._connected()
        self._asked = 0

    def horizon(self) -> int | None:
        horizon = self._metadata.get("action_horizon")
        return horizon if isinstance(horizon, int) and horizon > 0 else None

    def reset(self) -> None:
        if self._asked:
            self.close()
            self._socket, self._metadata = self._connected()
        self._asked = 0

    def ask(self, observation: Observation) -> Mapping[str, Any]:
        naming = self._naming
        images = {name: self._image(observation.images[camera]) for camera, name in naming.cameras.items()}
        state = {} if observation.state is None else naming.numbers(observation.state)
        self._asked += 1
        self._socket.send(pack({**images, **state, naming.instruction[0]: observation.instruction}, NDARRAY))
        try:
            reply = self._socket.recv(self._timeout)
        except TimeoutError:
            self.close()  # nothing says which question a late answer belongs to
            self._socket, self._metadata = self._connected()
            raise TimeoutError(f"{self._endpoint} did not answer in {self._timeout:g} s") from None
        if isinstance(reply, str):
            raise PeerError(f"{self._endpoint} answered: {reply}")
        return _map(_unpacked(reply))

    def close(self) -> None:
        with suppress(Exception):  # a connection that is broken is closed already
            self._open.close()

    def _image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.moveaxis(image, -1, 0)) if self._channels_first else image

    def _connected(self) -> tuple[Any, Mapping[str, Any]]:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        try:
            connecting = connect(self._endpoint, compression=None, max_size=None, open_timeout=self._timeout)
            socket = self._open.enter_context(connecting)
            return socket, _map(_unpacked(socket.recv(self._timeout)))
        except (OSError, TimeoutError, WebSocketException) as error:
            raise PeerError(f"there is no openpi server at {self._endpoint}: {error}") from error


_KINDS: dict[str, Any] = {"gr00t": Gr00tPeer, "openpi": OpenPiPeer}


def _map(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PeerError(f"the server must answer a map, got {type(value).__name__}")
    return {str(name): part for name, part in value.items()}


def _unpacked(frame: Any) -> Any:
    try:
        return unpack(frame).value
    except WireError as error:
        raise PeerError(f"the server's answer cannot be read: {error}") from error
