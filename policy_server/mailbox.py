"""The requests that wait for the policy: at most one observation per client and session, the newest (no zmq)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from policy_server.checks import WireError
from policy_server.peers import Peer
from policy_server.wire import Message
from vla.api import Observation


@dataclass(eq=False)
class Request:
    """A request on its way to the policy.

    Attributes:
        peer: who waits for the answer.
        message: what came.
        observation: what to infer from, its packed images black until the policy's turn; None for a reset.
        arrived: [s] when it was received, on this process's clock.
        decoded: [s] when decoding ended.
        started: [s] when the policy was given it.
        image_decode: [ms] that unpacking its images took.
    """

    peer: Peer
    message: Message
    observation: Observation | None
    arrived: float
    decoded: float
    started: float = 0.0
    image_decode: float = 0.0

    @property
    def client(self) -> bytes:
        """The connection that it came over."""
        return self.peer.client

    @property
    def session(self) -> str:
        """The session that it is about."""
        return self.message.session

    @property
    def is_reset(self) -> bool:
        """Whether it asks to forget its session rather than for actions."""
        return self.message.kind == "reset"

    def stages(self, now: float) -> dict[str, float]:
        """[ms] of the wire's stages, if it is answered now."""
        return {
            "wire_decode": 1000 * (self.decoded - self.arrived),
            "queue": 1000 * (self.started - self.decoded),
            **({"image_decode": self.image_decode} if self.message.packed else {}),
            "server": 1000 * (now - self.arrived),
        }

    def expired(self, now: float) -> bool:
        """Whether the sender's deadline has passed."""
        deadline = self.message.deadline_ms
        return deadline is not None and now - self.arrived > deadline / 1000


class Mailbox:
    """Clients take turns, whatever each of them sends; one client's requests keep their order.

    A newer observation takes the turn of an older one of its client and session, unless a reset of the session lies
    between the two.

    Args:
        capacity: requests that may wait; bounds the memory that clients can make the server hold.
        per_client: requests of one client that may wait, so that no client fills the mailbox alone.
    """

    def __init__(self, capacity: int = 256, per_client: int = 64) -> None:
        self._capacity = capacity
        self._per_client = per_client
        self._turns: dict[bytes, deque[Request]] = {}  # in the order of the clients' turns; no queue is empty

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def __iter__(self) -> Iterator[Request]:
        return (request for queue in self._turns.values() for request in queue)

    def put(self, request: Request) -> Request | None:
        """Let a request wait; returns the older request that it supersedes.

        Raises:
            WireError: `overloaded`, if too many wait.
        """
        queue = self._turns.get(request.client, deque())
        of_session = [other for other in queue if other.session == request.session]
        older = next((other for other in of_session if not (request.is_reset or other.is_reset)), None)
        if older is None:
            self._check_room(queue)
            queue.append(request)
            self._turns[request.client] = queue
        elif of_session[-1] is older:
            queue[queue.index(older)] = request
        else:
            queue.remove(older)
            queue.append(request)
        return older

    def take(self, most: int = 1) -> list[Request]:
        """The requests whose turn it is: one reset, or up to `most` observations, each of another session."""
        taken: list[Request] = []
        while self._turns and len(taken) < most:
            client, queue = next(iter(self._turns.items()))
            first = queue[0]
            if taken and (first.is_reset or first.session in {request.session for request in taken}):
                break
            taken.append(queue.popleft())
            del self._turns[client]
            if queue:
                self._turns[client] = queue
            if first.is_reset:
                break
        return taken

    def take_expired(self, now: float) -> list[Request]:
        """The requests that came too late for their senders; they no longer wait."""
        late = [request for request in self if request.expired(now)]
        for request in late:
            self._turns[request.client].remove(request)
        if late:
            self._turns = {client: queue for client, queue in self._turns.items() if queue}
        return late

    def take_all(self) -> list[Request]:
        """Everything that waits; nothing waits then."""
        waiting = list(self)
        self._turns.clear()
        return waiting

    def _check_room(self, queue: deque[Request]) -> None:
        if len(queue) >= self._per_client:
            raise WireError(f"{len(queue)} requests of this client wait already", "overloaded", "send less")
        if len(self) >= self._capacity:
            text = f"{len(self)} requests wait already"
            raise WireError(text, "overloaded", "send less or start another server")
