"""The requests that wait for the policy: at most one observation per client and session, the newest (no zmq)."""

from dataclasses import dataclass

from policy_server.wire import Message, WireError
from vla.api import Observation


@dataclass(eq=False)
class Request:
    """A request on its way to the policy.

    Attributes:
        envelope: frames before the delimiter, to send back unchanged.
        message: what came.
        observation: what to infer from; None for a reset.
        arrived: [s] when it was received, on this process's clock.
        decoded: [s] when decoding ended.
        started: [s] when the policy was given it.
    """

    envelope: list[bytes]
    message: Message
    observation: Observation | None
    arrived: float
    decoded: float
    started: float = 0.0

    def expired(self, now: float) -> bool:
        """Whether the sender's deadline has passed."""
        deadline = self.message.deadline_ms
        return deadline is not None and now - self.arrived > deadline / 1000

    def replaces(self, other: "Request") -> bool:
        """Whether both are observations of one session of one client."""
        same = (self.envelope[0], self.message.session) == (other.envelope[0], other.message.session)
        return same and self.observation is not None and other.observation is not None


class Mailbox:
    """First come, first served between sessions; within a session the newest observation wins.

    A newer observation takes the older one's turn, unless a reset of the session lies between the two.

    Args:
        capacity: requests that may wait; bounds the memory that clients can make the server hold.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._waiting: list[Request] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, request: Request) -> Request | None:
        """Let a request wait; returns the older request that it supersedes.

        Raises:
            WireError: `overloaded`, if too many wait.
        """
        older = next((index for index, other in enumerate(self._waiting) if request.replaces(other)), None)
        if older is None:
            if len(self._waiting) >= self._capacity:
                raise WireError(
                    f"{len(self._waiting)} requests wait already", "overloaded", "send less or start another server"
                )
            self._waiting.append(request)
            return None
        superseded = self._waiting[older]
        session = request.message.session
        if any(other.observation is None and other.message.session == session for other in self._waiting[older:]):
            del self._waiting[older]
            self._waiting.append(request)
        else:
            self._waiting[older] = request
        return superseded

    def take(self) -> Request | None:
        """The request whose turn it is, or None."""
        return self._waiting.pop(0) if self._waiting else None
