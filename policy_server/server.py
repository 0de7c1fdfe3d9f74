"""Serves any Policy over ZeroMQ: one thread receives, another runs the policy and sends what it answered.

Both use the ROUTER, the mailbox and the counters, in turns: whoever does holds a lock, and never waits meanwhile.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import perf_counter

import zmq

from policy_server import messages, sockets
from policy_server.arrays import Frame
from policy_server.checks import WireError
from policy_server.codecs import available
from policy_server.door import guard
from policy_server.mailbox import Request
from policy_server.peers import Dialect, Dialects, Peer
from policy_server.refusals import Refusals
from policy_server.router import RouterPeer, bind, check_endpoint, new_router, opened
from policy_server.scheduler import Batching, Scheduler
from policy_server.security import ServerKeys
from policy_server.waiting import Waiting
from policy_server.watching import Monitor, Watcher
from policy_server.wire import Message
from policy_server.worker import Result
from vla.api import InputError, Policy

log = logging.getLogger(__name__)

SIGNAL_WAIT = 0.2  # [s] the kernel may hand a signal to any thread; Python runs its handler when the main thread wakes
GLANCE = 1000  # [ms] the receiving thread looks at least so often whether a session is to be forgotten
MAX_RECEIVED_AT_ONCE = 64  # finished answers leave even while requests pour in


class PolicyServer:
    """Serves a policy until `stop()`; entering the context binds the endpoint, leaving it stops and waits.

    The policy is used by one thread at a time and never by the thread that answers `hello` and `health`.

    Args:
        policy: what to serve, ready to answer.
        endpoint: `tcp://host:port`; port 0 takes a free one, see `endpoint` after entering.
        insecure: allow an address that other machines can reach although nothing is encrypted or authenticated.
        keys: encrypt, and let in only clients whose keys are known; None does neither.
        batching: how many observations the policy answers at once.
        idle: [s] after which the policy forgets a session that nobody uses.
        dialects: other clients' protocols that it speaks too, see `policy_server.dialect`.
        watchers: are told about every answer, for example to record it; the caller's to close, after the server.

    Attributes:
        tally: what became of the requests.

    Raises:
        InputError: on an endpoint of another form, one beyond this machine without `keys` or `insecure`, or batching
            with a policy that cannot.
    """

    def __init__(
        self,
        policy: Policy,
        endpoint: str = "tcp://127.0.0.1:0",
        *,
        insecure: bool = False,
        keys: ServerKeys | None = None,
        batching: Batching = Batching(),  # noqa: B008 - frozen
        idle: float = 600.0,
        dialects: Sequence[Dialect] = (),
        watchers: Sequence[Watcher] = (),
    ) -> None:
        check_endpoint(endpoint, keys is not None, insecure)
        self.endpoint = endpoint
        self._policy = policy
        self._spec_id = messages.spec_id(policy.spec)
        self._keys = keys
        self._dialects = Dialects(dialects, lambda: self._waiting.ring())
        self._monitor = Monitor(watchers)
        self.tally = self._monitor.tally
        self._refusals = Refusals(self.tally)
        self._scheduler = Scheduler(policy, self._job_ended, batching, idle)
        self._turns = threading.Lock()
        self._stopping = threading.Event()
        self._served = self._failed = 0
        self._broken: BaseException | None = None

    def __enter__(self) -> "PolicyServer":
        """Bind and start to answer.

        Raises:
            InputError: if the endpoint is taken or this machine does not have its address.
        """
        self._context = zmq.Context()
        with ExitStack() as undo:
            undo.callback(lambda: self._context.destroy(linger=0))
            self._router = new_router(self._context, self.endpoint)
            self._waiting = Waiting(self._router, guard(self._router, self._keys))
            undo.callback(self._waiting.close)
            self.endpoint = bind(self._router, self.endpoint)
            self._dialects.open(self.stop)
            undo.pop_all()
        self._io = threading.Thread(target=self._serve, name="policy-server-io", daemon=True)
        self._io.start()
        log.info("serving %s at %s", self._policy.spec.model, self.endpoint)
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        self.stop()
        self._io.join()
        self._dialects.close()
        self._scheduler.close()
        self._context.term()
        if self._broken is not None and raised is None:
            raise self._broken

    def serve_forever(self) -> None:
        """Wait, inside the context, until `stop()` is called and the running request is answered.

        Raises:
            BaseException: what ended the I/O thread, if it ended without `stop()`.
        """
        while self._io.is_alive():
            self._io.join(SIGNAL_WAIT)
        if self._broken is not None:
            raise self._broken

    def stop(self) -> None:
        """Finish the running request, refuse the waiting ones; returns at once, safe in a signal handler."""
        self._stopping.set()
        self._waiting.ring()

    def _serve(self) -> None:
        """The I/O thread: receives everything, and answers what the policy is not needed for."""
        try:
            while self._broken is None and (self._scheduler.busy or not self._stopping.is_set()):
                self._turn()
            with self._turns:
                self._receive()
                self._receive_delivered()
                self._refuse_waiting()
        except BaseException as error:
            self._break(error)
        finally:
            with self._turns:
                self._router.close()
            self._waiting.close()

    def _turn(self) -> None:
        with self._turns:
            patience = self._patience()
        self._waiting.wait(patience)
        with self._turns:
            self._work()

    def _job_ended(self) -> None:
        """The policy's thread answers for itself: to wake the other for it takes longer than the answer."""
        try:
            with self._turns:
                if self._router.closed:
                    return
                self._finish()
                self._work()  # also what the ROUTER announced while it sent, which the other thread is not told again
                hurry = self._stopping.is_set() or self._patience() < GLANCE
        except BaseException as error:
            self._break(error)
            hurry = True
        if hurry:
            self._waiting.ring()

    def _work(self) -> None:
        """Take what has come, and keep the policy busy with it."""
        self._receive()
        self._receive_delivered()
        self._start_next()
        self.tally.load = self._scheduler.state()

    def _patience(self) -> int:
        """[ms] after which there is work although nothing comes, at most GLANCE."""
        if sockets.readable(self._router):
            return 0
        patience = self._scheduler.patience(perf_counter())
        return GLANCE if patience is None else min(patience, GLANCE)

    def _break(self, error: BaseException) -> None:
        """Keep what ended the server for the thread that waits for it."""
        log.critical("the server broke: %s: %s", type(error).__name__, error)
        self._broken = error

    def _receive(self) -> None:
        for _ in range(MAX_RECEIVED_AT_ONCE):
            if not sockets.readable(self._router):  # cheaper than an exception
                return
            self._take(sockets.receive(self._router, sockets.NOBLOCK), perf_counter())

    def _receive_delivered(self) -> None:
        for peer, payload, arrived in self._dialects.take(MAX_RECEIVED_AT_ONCE):
            self._answer(peer, None, lambda p=peer, f=payload, t=arrived: self._handle(p, f, t))

    def _take(self, frames: list[zmq.Frame], arrived: float) -> None:
        envelope, payload = opened(frames)
        peer = RouterPeer(self._router, envelope, self._dialects.exchange(envelope[0], payload))
        self._answer(peer, None, lambda: self._handle(peer, payload, arrived))

    def _handle(self, peer: Peer, payload: Sequence[Frame], arrived: float) -> Message | None:
        """The reply to a message, or None if the policy has to answer it."""
        message = peer.decode(payload)
        try:
            return self._handle_message(peer, message, arrived)
        except WireError as error:
            error.seq = message.seq
            raise
        except InputError as error:
            raise WireError(str(error), "input", "compare the observation with hello's spec", message.seq) from error

    def _handle_message(self, peer: Peer, message: Message, arrived: float) -> Message | None:
        spec = self._policy.spec
        if message.kind == "hello":
            embodiment = messages.read_hello(message)
            if embodiment is not None and (differences := embodiment.differences(spec)):
                raise WireError("; ".join(differences), "spec", "change the client's set-up or serve another policy")
            return messages.timed(messages.welcome(message.seq, spec, available()), perf_counter() - arrived)
        if message.kind in ("health", "metrics"):
            messages.empty(message)
            self.tally.load = self._scheduler.state()  # with what came in this turn
            body = self._health() if message.kind == "health" else self._monitor.body()
            return messages.timed(Message(message.kind, message.seq, body=body), perf_counter() - arrived)
        if message.kind == "error":
            raise WireError("a client sends hello, infer, reset, health or metrics, not error")
        self._enqueue(peer, message, arrived)
        return None

    def _enqueue(self, peer: Peer, message: Message, arrived: float) -> None:
        if message.kind == "infer":
            observation = messages.read_infer(message, self._policy.spec, self._spec_id)
        else:
            messages.empty(message)
            observation = None
        superseded = self._scheduler.put(Request(peer, message, observation, arrived, perf_counter()))
        if superseded is not None:
            self._refuse(superseded, WireError("a newer observation of this session came", "superseded"))

    def _start_next(self) -> None:
        """Keep the policy busy with what is still worth running."""
        if self._stopping.is_set():
            self._refuse_waiting()
        now = perf_counter()
        for late in self._scheduler.start_next(now):
            text = f"{1000 * (now - late.arrived):.0f} ms passed, {late.message.deadline_ms} allowed"
            self._refuse(late, WireError(text, "expired", "the policy is slower than the client's deadline"))

    def _finish(self) -> None:
        for request, result in self._scheduler.take_finished(perf_counter()):
            self._answer(request.peer, request.message, lambda r=request, x=result: self._reply(r, x))

    def _reply(self, request: Request, result: Result) -> Message:
        if isinstance(result, Exception):
            raise result
        stages = request.stages(perf_counter())
        self._monitor.replied(request, result, stages)
        if result is None:
            return Message("reset", request.message.seq, request.session, timing=stages)
        return messages.actions(request.message, result, stages)

    def _answer(self, peer: Peer, request: Message | None, work: Callable[[], Message | None]) -> None:
        """Send what `work` returns, or the error it raises: whatever came or failed, the server goes on."""
        seq, session = (request.seq, request.session) if request else (0, "")
        try:
            reply = work()
            frames = peer.encode(reply) if reply is not None else None
            self._served += request is not None
        except Exception as error:
            self._failed += not isinstance(error, InputError)
            frames = peer.encode(self._refusals.reply(error, seq, session))
        if frames is not None:
            self._send(peer, frames)

    def _refuse(self, request: Request, error: WireError) -> None:
        reply = self._refusals.reply(error, request.message.seq, request.session)
        self._send(request.peer, request.peer.encode(reply))

    def _send(self, peer: Peer, frames: list[Frame]) -> None:
        if not peer.send(frames):
            self._refusals.undelivered(peer.client)

    def _refuse_waiting(self) -> None:
        for request in self._scheduler.withdraw():
            self._refuse(request, WireError("the server is stopping", "stopping"))

    def _health(self) -> dict[str, object]:
        status = "stopping" if self._stopping.is_set() else "ready"
        load = self._scheduler.load(perf_counter())
        return {"status": status, **load, "served": self._served, "failed": self._failed}
