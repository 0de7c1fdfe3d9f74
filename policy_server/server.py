"""Serves any Policy over ZeroMQ: one thread does input and output, another runs the policy."""

import logging
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter

import zmq

from policy_server import messages
from policy_server.mailbox import Mailbox, Request
from policy_server.wire import MAX_MESSAGE_BYTES, Message, WireError, decode, encode
from vla.api import ActionChunk, InputError, Policy

log = logging.getLogger(__name__)

LINGER_MS = 1000  # the last reply still leaves when the server stops
QUEUED_MESSAGES = 16  # per client and direction, inside ZeroMQ
MAX_ENVELOPE = 8
MAX_RECEIVED_AT_ONCE = 64  # finished answers leave even while requests pour in
ENDPOINT = re.compile(r"tcp://(?P<host>[^/]+):(?P<port>\*|\d+)")
LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|localhost|\[::1\]")


class PolicyServer:
    """Serves a policy until `stop()`; entering the context binds the endpoint, leaving it stops and waits.

    The policy is used by one thread at a time and never by the thread that answers `hello` and `health`.

    Args:
        policy: what to serve, ready to answer.
        endpoint: `tcp://host:port`; port 0 takes a free one, see `endpoint` after entering.
        insecure: allow an address that other machines can reach; messages are neither encrypted nor authenticated.

    Raises:
        InputError: on an endpoint of another form, or one beyond this machine without `insecure`.
    """

    def __init__(self, policy: Policy, endpoint: str = "tcp://127.0.0.1:0", *, insecure: bool = False) -> None:
        _check_endpoint(endpoint, insecure)
        self.endpoint = endpoint
        self._policy = policy
        self._mailbox = Mailbox()
        self._running: tuple[Request, Future[ActionChunk | None]] | None = None
        self._stopping = threading.Event()
        self._served = self._failed = 0
        self._broken: BaseException | None = None

    def __enter__(self) -> "PolicyServer":
        """Bind and start to answer.

        Raises:
            InputError: if the endpoint is taken or this machine does not have its address.
        """
        self._context = zmq.Context()
        try:
            self._router = self._bind()
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._bell, self._ear = socket.socketpair()  # wakes the I/O thread, also from a signal handler
        self._bell.setblocking(False)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy")
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(self._ear.fileno(), zmq.POLLIN)
        self._io = threading.Thread(target=self._serve, name="policy-server-io", daemon=True)
        self._io.start()
        log.info("serving %s at %s", self._policy.spec.model, self.endpoint)
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        self.stop()
        self._io.join()
        self._worker.shutdown()
        self._context.term()
        self._bell.close()
        self._ear.close()
        if self._broken is not None and raised is None:
            raise self._broken

    def serve_forever(self) -> None:
        """Wait, inside the context, until `stop()` is called and the running request is answered.

        Raises:
            BaseException: what ended the I/O thread, if it ended without `stop()`.
        """
        self._io.join()
        if self._broken is not None:
            raise self._broken

    def stop(self) -> None:
        """Finish the running request, refuse the waiting ones; returns at once, safe in a signal handler."""
        self._stopping.set()
        self._wake()

    def _bind(self) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        options = {
            zmq.LINGER: LINGER_MS,
            zmq.MAXMSGSIZE: MAX_MESSAGE_BYTES,
            zmq.RCVHWM: QUEUED_MESSAGES,
            zmq.SNDHWM: QUEUED_MESSAGES,
            zmq.IPV6: int("[" in self.endpoint),
        }
        for option, value in options.items():
            router.setsockopt(option, value)
        try:
            router.bind(self.endpoint)
        except zmq.ZMQError as error:
            if error.errno == zmq.EADDRINUSE:
                remedy = "the port is in use: stop the other server, choose another port, or port 0 for a free one"
            else:
                remedy = f"{error.strerror}: choose an address of this machine, for example tcp://127.0.0.1:0"
            raise InputError(f"cannot serve at {self.endpoint}: {remedy}") from None
        self.endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
        return router

    def _wake(self, *_: object) -> None:
        with suppress(BlockingIOError, OSError):  # full: it is awake already; closed: nobody is left to wake
            self._bell.send(b"\0")

    def _serve(self) -> None:
        """The I/O thread: the only one that touches the ROUTER, the mailbox and the counters."""
        try:
            while not (self._stopping.is_set() and self._running is None):
                self._turn()
            self._receive()
            self._refuse_waiting()
        except BaseException as error:  # raised again in the thread that waits for this one
            log.critical("the server broke: %s: %s", type(error).__name__, error)
            self._broken = error
        finally:
            self._router.close()

    def _turn(self) -> None:
        ready = dict(self._poller.poll())
        if self._ear.fileno() in ready:
            self._ear.recv(4096)
        if self._running is not None and self._running[1].done():
            self._finish(*self._running)
        if self._router in ready:
            self._receive()
        self._start_next()

    def _receive(self) -> None:
        with suppress(zmq.Again):
            for _ in range(MAX_RECEIVED_AT_ONCE):
                self._take(self._router.recv_multipart(zmq.NOBLOCK, copy=False), perf_counter())

    def _take(self, frames: list[zmq.Frame], arrived: float) -> None:
        # Only the envelope is copied; without a delimiter only the sender is known.
        size = next((index for index, frame in enumerate(frames[:MAX_ENVELOPE]) if not len(frame)), 1)
        envelope, payload = [frame.bytes for frame in frames[:size]], [frame.buffer for frame in frames[size + 1 :]]
        self._answer(envelope, None, lambda: self._handle(envelope, payload, arrived))

    def _handle(self, envelope: list[bytes], payload: list[memoryview], arrived: float) -> Message | None:
        """The reply to a message, or None if the policy has to answer it."""
        message = decode(payload)
        try:
            return self._handle_message(envelope, message, arrived)
        except WireError as error:
            error.seq = message.seq
            raise
        except InputError as error:
            raise WireError(str(error), "input", "compare the observation with hello's spec", message.seq) from error

    def _handle_message(self, envelope: list[bytes], message: Message, arrived: float) -> Message | None:
        spec = self._policy.spec
        if message.kind == "hello":
            embodiment = messages.read_hello(message)
            if embodiment is not None and (differences := embodiment.differences(spec)):
                raise WireError("; ".join(differences), "spec", "change the client's set-up or serve another policy")
            return _timed(messages.welcome(message.seq, spec), arrived)
        if message.kind == "health":
            messages.empty(message)
            return _timed(Message("health", message.seq, body=self._health()), arrived)
        if message.kind == "error":
            raise WireError("a client sends hello, infer, reset or health, not error")
        self._enqueue(envelope, message, arrived)
        return None

    def _enqueue(self, envelope: list[bytes], message: Message, arrived: float) -> None:
        if message.kind == "infer":
            observation = messages.read_infer(message, self._policy.spec)
        else:
            messages.empty(message)
            observation = None
        superseded = self._mailbox.put(Request(envelope, message, observation, arrived, perf_counter()))
        if superseded is not None:
            self._refuse(superseded, "superseded", "a newer observation of this session came")

    def _start_next(self) -> None:
        """Give the worker the next request that is still worth running."""
        if self._stopping.is_set():
            self._refuse_waiting()
        while self._running is None and (request := self._mailbox.take()) is not None:
            request.started = perf_counter()
            if request.expired(request.started):
                text = (
                    f"{1000 * (request.started - request.arrived):.0f} ms passed, {request.message.deadline_ms} allowed"
                )
                self._refuse(request, "expired", text, "the policy is slower than the client's deadline")
                continue
            future = self._worker.submit(self._run, request)
            self._running = request, future
            future.add_done_callback(self._wake)

    def _run(self, request: Request) -> ActionChunk | None:
        """In the worker thread: use the policy."""
        if request.observation is None:
            self._policy.reset(request.message.session)
            return None
        chunk = self._policy.infer(request.observation)
        promised = (self._policy.spec.horizon, len(self._policy.spec.actions))
        if chunk.actions.shape != promised:
            raise RuntimeError(f"the policy gave actions {chunk.actions.shape}, its spec promises {promised}")
        return chunk

    def _finish(self, request: Request, future: "Future[ActionChunk | None]") -> None:
        self._running = None
        self._answer(request.envelope, request.message, lambda: self._result(request, future.result()))

    def _result(self, request: Request, chunk: ActionChunk | None) -> Message:
        stages = {
            "wire_decode": 1000 * (request.decoded - request.arrived),
            "queue": 1000 * (request.started - request.decoded),
            "server": 1000 * (perf_counter() - request.arrived),
        }
        if chunk is None:
            return Message("reset", request.message.seq, request.message.session, timing=stages)
        return messages.actions(request.message, chunk, stages)

    def _answer(self, envelope: list[bytes], request: Message | None, work: Callable[[], Message | None]) -> None:
        """Send what `work` returns, or the error it raises: whatever came or failed, the server goes on."""
        seq, session = (request.seq, request.session) if request else (0, "")
        try:
            reply = work()
            frames = encode(reply) if reply is not None else None
            self._served += request is not None
        except WireError as error:
            log.info("refused a message: %s: %s", error.type, error)
            frames = encode(messages.failure(error.type, str(error), error.hint, error.seq or seq, session))
        except InputError as error:
            frames = encode(messages.failure("input", str(error), "", seq, session))
        except Exception as error:
            self._failed += 1
            log.exception("failed to answer request %d of session %a", seq, session)
            text = f"{type(error).__name__}: {error}"
            frames = encode(messages.failure("internal", text, "the server's log has the traceback", seq, session))
        if frames is not None:
            self._router.send_multipart([*envelope, b"", *frames], copy=False)

    def _refuse(self, request: Request, error_type: str, text: str, hint: str = "") -> None:
        message = request.message
        reply = messages.failure(error_type, text, hint, message.seq, message.session)
        self._answer(request.envelope, None, lambda: reply)

    def _refuse_waiting(self) -> None:
        while (request := self._mailbox.take()) is not None:
            self._refuse(request, "stopping", "the server is stopping")

    def _health(self) -> dict[str, object]:
        busy = None if self._running is None else 1000 * (perf_counter() - self._running[0].started)
        return {
            "status": "stopping" if self._stopping.is_set() else "ready",
            "busy_ms": busy,
            "pending": len(self._mailbox),
            "served": self._served,
            "failed": self._failed,
        }


def _timed(reply: Message, arrived: float) -> Message:
    elapsed = 1000 * (perf_counter() - arrived)
    return Message(reply.kind, reply.seq, reply.session, timing={"server": elapsed}, body=reply.body)


def _check_endpoint(endpoint: str, insecure: bool) -> None:
    parts = ENDPOINT.fullmatch(endpoint)
    if parts is None:
        raise InputError(f"an endpoint is tcp://host:port, for example tcp://127.0.0.1:5555, got {endpoint!r}")
    if LOOPBACK.fullmatch(parts["host"]) is None and not insecure:
        raise InputError(
            f"{endpoint} can be reached from other machines, and nothing on the wire is encrypted or authenticated; "
            "serve at tcp://127.0.0.1:<port>, or say insecure=true on a network you trust"
        )
