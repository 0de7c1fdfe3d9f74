"""A policy that runs in another process: what a robot imports (numpy and pyzmq only)."""

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import zmq

from policy_server import messages, sockets
from policy_server.arrays import MAX_MESSAGE_BYTES
from policy_server.checks import WireError
from policy_server.codecs import INSTALL, Codec
from policy_server.messages import Embodiment
from policy_server.security import ClientKeys, protect_client
from policy_server.wire import Message, decode, encode
from vla.api import ActionChunk, InputError, Observation, PolicySpec
from vla.resampling import square

HELLO_WAIT = 0.5  # [s] for the first answer to hello, doubled each time
QUEUED_MESSAGES = 4
FIRST_RECONNECT, LONGEST_RECONNECT = 20, 1000  # [ms] back-off of a connection that is refused
HANDSHAKE = 1000  # [ms] after which a connection that says nothing is made again
OWN_FAULT = ("input", "malformed", "version", "spec")  # error types that the caller can mend


def _disconnect(context: "zmq.Context[zmq.Socket[bytes]]", opened: "list[zmq.Socket[bytes]]") -> None:
    """Close the sockets, then the context, which waits for ever for one that is open.

    A context itself finds its sockets by weak references, and of a cycle these are broken before anything is closed.
    """
    for dealer in opened:
        dealer.close(linger=0)
    context.destroy(linger=0)


def shrunk(observation: Observation, spec: PolicySpec) -> Observation:
    """The observation with the policy's cameras as the policy will make them."""
    if spec.resize is None:
        return observation
    strategy, side = spec.resize
    images = {camera.name: square(observation.images[camera.name], strategy, side) for camera in spec.cameras}
    return replace(observation, images=images)


class PolicyUnavailable(TimeoutError):
    """No answer from the policy server in time; the message says where and what to check."""


class RemoteError(RuntimeError):
    """The server answered that it cannot: superseded, expired, overloaded, stopping or internal.

    Attributes:
        type: error type of the wire's specification.
    """

    def __init__(self, message: str, type: str) -> None:  # noqa: A002
        super().__init__(message)
        self.type = type


class RemotePolicy:
    """A Policy served somewhere else. Belongs to one thread; close it, or use it as a context manager.

    Args:
        endpoint: the server's `tcp://host:port`.
        timeout: [s] that connecting, and every call after it, may take.
        embodiment: what the robot sends and expects; the server refuses it if the policy needs something else.
        keys: encrypt, and speak to the server with this key alone; see `policy_server.security.client_keys`.
        codec: how images travel; `Codec("jpeg")` needs `cadence-vla[codecs]` on both sides and changes what the policy
            sees.
        resize: make images the size that the policy reads before they are sent, exactly as it would: fewer bytes for
            6 ms of this machine's time an image of 480 x 640. Only for a policy whose spec says how.

    Attributes:
        codec: how images travel.

    Raises:
        InputError: on a bad endpoint, if server and client do not fit each other (both sides named), or if images are
            to be resized and the policy does not say how.
        PolicyUnavailable: if no server answers in time.
    """

    def __init__(
        self,
        endpoint: str,
        timeout: float = 5.0,
        embodiment: Embodiment | None = None,
        keys: ClientKeys | None = None,
        codec: Codec = Codec(),  # noqa: B008 - frozen
        resize: bool = False,
    ) -> None:
        if not 0 < timeout < math.inf:
            raise InputError(f"timeout must be positive, finite seconds, got {timeout}")
        self.endpoint = endpoint
        self.timeout = timeout
        self._seq = 0
        self.codec = codec
        self._resizes = resize
        self._keys = keys
        self._context = zmq.Context()
        self._opened: list[zmq.Socket[bytes]] = []  # the newest socket
        self._end = weakref.finalize(self, _disconnect, self._context, self._opened)
        self._end.atexit = False  # a thread may still use the socket then, and both end with the process
        try:
            self._socket = self._connect()
            self._spec, self._spec_id = self._hello(embodiment)
            self._check_resize()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "RemotePolicy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect at once; what was not sent is dropped."""
        self._end()

    @property
    def spec(self) -> PolicySpec:
        """What the served policy needs and gives, as agreed when connecting."""
        return self._spec

    def infer(self, observation: Observation) -> ActionChunk:
        """Ask for the next actions. The observation's arrays must not change until this returns.

        Returns:
            the chunk; `timing` has the policy's and the server's stages and `round_trip`.

        Raises:
            InputError: if the observation does not fit `spec`.
            PolicyUnavailable: if no answer comes in time.
            RemoteError: if the server answers that it cannot.
        """
        self._spec.check(observation)
        started = perf_counter()
        sent = shrunk(observation, self._spec) if self._resizes else observation
        reply = self._call(lambda seq: messages.infer(seq, sent, 1000 * self.timeout, self._spec_id, self.codec))
        return messages.read_actions(reply, self._spec, {"round_trip": 1000 * (perf_counter() - started)})

    def reset(self, session: str) -> None:
        """Make the policy forget this session; returns when it has.

        Raises:
            PolicyUnavailable: if no answer comes in time.
            RemoteError: if the server answers that it cannot.
        """
        self._call(lambda seq: Message("reset", seq, session, 1000 * self.timeout))

    def health(self) -> dict[str, object]:
        """The server's `health` body; answered while the policy runs.

        Raises:
            PolicyUnavailable: if no answer comes in time.
        """
        return dict(self._call(lambda seq: Message("health", seq)).body)

    def metrics(self) -> dict[str, Any]:
        """The server's `metrics` body: what it counted; answered while the policy runs.

        Raises:
            PolicyUnavailable: if no answer comes in time.
        """
        return dict(self._call(lambda seq: Message("metrics", seq)).body)

    def _connect(self) -> zmq.Socket[bytes]:
        """A new socket.

        IMMEDIATE stays off: it throws away a reply that was received when the server leaves right after sending it.
        What it is for, that nothing stale waits for an absent server, is done by dropping the socket after a timeout.
        """
        dealer = self._context.socket(zmq.DEALER)
        self._opened[:] = [dealer]
        options = {
            zmq.LINGER: 0,
            zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
            zmq.SNDTIMEO: sockets.milliseconds(self.timeout),  # ZeroMQ learns late that its queue is empty again
            zmq.SNDBUF: sockets.send_buffer(self.endpoint),
            zmq.SNDHWM: QUEUED_MESSAGES,
            zmq.RCVHWM: QUEUED_MESSAGES,
            zmq.RECONNECT_IVL: FIRST_RECONNECT,
            zmq.RECONNECT_IVL_MAX: LONGEST_RECONNECT,
            zmq.HANDSHAKE_IVL: HANDSHAKE,
            zmq.IPV6: int("[" in self.endpoint),
        }
        for option, value in options.items():
            dealer.setsockopt(option, value)
        if self._keys is not None:
            protect_client(dealer, self._keys)
        try:
            dealer.connect(self.endpoint)
        except zmq.ZMQError as error:
            form = "an endpoint is tcp://host:port, for example tcp://127.0.0.1:5555"
            raise InputError(f"cannot connect to {self.endpoint!r}: {error.strerror}; {form}") from None
        return dealer

    def _hello(self, embodiment: Embodiment | None) -> tuple[PolicySpec, str]:
        """Repeat hello until a server answers or the time is up."""
        end = perf_counter() + self.timeout
        wait = HELLO_WAIT
        while True:
            try:
                patience = min(wait, end - perf_counter())
                reply = self._call(lambda seq: messages.hello(seq, embodiment), patience)
            except PolicyUnavailable:  # noqa: PERF203
                wait *= 2
                if perf_counter() >= end:
                    raise self._unavailable(self.timeout) from None
            else:
                self._check_codec(messages.read_codecs(reply))
                return messages.read_welcome(reply)

    def _check_codec(self, offered: list[str]) -> None:
        if self.codec.name not in offered:
            raise InputError(
                f"the server at {self.endpoint} reads images as {offered}, not {self.codec.name}: {INSTALL}"
            )

    def _check_resize(self) -> None:
        if self._resizes and self._spec.resize is None:
            raise InputError(
                f"resize needs a policy that says how it resizes images; the one at {self.endpoint} says nothing, "
                "because it reads them as they are or because no one else can do it: leave resize out"
            )

    def _call(self, request: Callable[[int], Message], timeout: float | None = None) -> Message:
        """Send `request(seq)` and return its reply, or raise the error it answers."""
        timeout = self.timeout if timeout is None else timeout
        end = perf_counter() + timeout
        self._seq += 1
        frames = encode(request(self._seq))
        if self._socket.closed:  # the last call was given up, and its request and reply with it
            self._socket = self._connect()
        try:
            sockets.send(self._socket, [b"", *frames])
            reply = self._reply(end)
        except zmq.Again:
            self._socket.close()
            raise self._unavailable(timeout) from None
        if reply.kind == "error":
            self._raise(*messages.read_failure(reply))
        return reply

    def _reply(self, end: float) -> Message:
        """The reply to the last request; an earlier seq is a late reply to a call that was given up.

        Raises:
            zmq.Again: if it has not come at `end`.
        """
        while True:
            self._socket.setsockopt(zmq.RCVTIMEO, sockets.milliseconds(end - perf_counter()))
            reply = self._decode(sockets.receive(self._socket))
            if reply.seq == self._seq or (reply.seq == 0 and reply.kind == "error"):
                return reply

    def _decode(self, frames: list[zmq.Frame]) -> Message:
        try:
            return decode([frame.buffer for frame in frames[1:]])
        except WireError as error:
            raise InputError(f"the server at {self.endpoint} answered: {error}; {error.hint}") from None

    def _raise(self, error_type: str, text: str, hint: str) -> None:
        message = f"the server at {self.endpoint} answered {error_type}: {text}" + (f" ({hint})" if hint else "")
        if error_type in OWN_FAULT:
            raise InputError(text if error_type == "input" else message)
        raise RemoteError(message, error_type)

    def _unavailable(self, timeout: float) -> PolicyUnavailable:
        advice = "check that cadence-serve runs there, the address, any firewall between, and both sides' keys"
        return PolicyUnavailable(f"no answer from a policy server at {self.endpoint} within {timeout:g} s: {advice}")
