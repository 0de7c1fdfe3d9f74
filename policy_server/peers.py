"""Whom the server answers, and in whose words: the seam between its threads and the protocols it speaks (no zmq)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, Protocol, TypeAlias

from policy_server import wire
from policy_server.arrays import Frame
from policy_server.wire import Message


class Exchange(Protocol):
    """One request and its reply in the words of one protocol; both mean what the wire's own messages mean."""

    def decode(self, frames: Sequence[Frame]) -> Message:
        """The request.

        Raises:
            WireError: if this protocol does not allow it; never another exception.
        """
        ...

    def encode(self, reply: Message) -> list[Frame]:
        """The reply, which is of the request's kind or an error."""
        ...


class Peer(Exchange, Protocol):
    """Who waits for one reply."""

    @property
    def client(self) -> bytes:
        """Names the connection."""
        ...

    def send(self, frames: list[Frame]) -> bool:
        """Send without waiting; whether the reply is on its way. Called by one thread at a time."""
        ...


Delivered: TypeAlias = tuple[Peer, Sequence[Frame], float]
Deliver: TypeAlias = Callable[[Peer, Sequence[Frame], float], None]


class Native:
    """The wire's own messages."""

    def decode(self, frames: Sequence[Frame]) -> Message:
        """As `policy_server.wire` specifies."""
        return wire.decode(frames)

    def encode(self, reply: Message) -> list[Frame]:
        """As `policy_server.wire` specifies."""
        return wire.encode(reply)


NATIVE = Native()


class Dialect:
    """Another client's protocol on this server; a subclass overrides what it needs.

    It recognises its messages on the server's own socket, or delivers those of a port of its own.
    """

    @classmethod
    def check(cls, options: Mapping[str, Any], insecure: bool) -> None:
        """Refuse, before there is a policy, what can be refused without it.

        Args:
            options: the dialect's own keys with their values.
            insecure: consent to an address that other machines can reach.

        Raises:
            InputError: for example on a port that is taken.
        """

    def recognise(self, client: bytes, frames: Sequence[Frame]) -> Exchange | None:
        """How to read and answer a message on the server's own socket; None if it is not of this protocol.

        Args:
            client: names the connection.
            frames: of the message, without envelope and delimiter; there may be none.
        """
        return None

    def open(self, deliver: Deliver, stop: Callable[[], None]) -> None:
        """Begin; a protocol with a port of its own listens now.

        Args:
            deliver: takes whom to answer, a request's frames and when it arrived [s]; from any thread.
            stop: ends the server.

        Raises:
            InputError: if the port is taken or this machine does not have its address.
        """

    def close(self) -> None:
        """End what `open` began, after the last reply has left."""


class Dialects:
    """The dialects of one server.

    Args:
        dialects: in the order in which they are asked whether they recognise a message.
        wake: called, in another thread, when `take` has something.
    """

    def __init__(self, dialects: Sequence[Dialect], wake: Callable[[], None]) -> None:
        self._dialects = tuple(dialects)
        self._wake = wake
        self._delivered: SimpleQueue[Delivered] = SimpleQueue()

    def open(self, stop: Callable[[], None]) -> None:
        """Begin all of them, or none.

        Raises:
            InputError: if a port is taken or this machine does not have its address.
        """
        try:
            for dialect in self._dialects:
                dialect.open(self._deliver, stop)
        except BaseException:
            self.close()
            raise

    def exchange(self, client: bytes, frames: Sequence[Frame]) -> Exchange:
        """How to read and answer a message on the server's own socket."""
        found = (dialect.recognise(client, frames) for dialect in self._dialects)
        return next((exchange for exchange in found if exchange is not None), NATIVE)

    def take(self, most: int) -> Iterator[Delivered]:
        """At most so many requests of those that came over other ports."""
        for _ in range(min(most, self._delivered.qsize())):
            yield self._delivered.get()
        if not self._delivered.empty():
            self._wake()

    def close(self) -> None:
        """End all of them."""
        for dialect in self._dialects:
            dialect.close()

    def _deliver(self, peer: Peer, frames: Sequence[Frame], arrived: float) -> None:
        self._delivered.put((peer, frames, arrived))
        self._wake()
