"""What the server's receiving thread waits for (pyzmq only)."""

import select
import socket
from contextlib import suppress

import zmq

from policy_server.door import Doorkeeper


class Waiting:
    """Ends a wait when a message comes, or when somebody rings, from any thread or a signal handler.

    Args:
        router: where messages come. Only its file descriptor is watched, so that other threads may use it meanwhile;
            that one announces what is new to whoever uses the socket next, so look at the socket before each wait.
        door: answers whoever wants to connect, while the thread waits; None if nobody has to be asked.
    """

    def __init__(self, router: "zmq.Socket[bytes]", door: Doorkeeper | None) -> None:
        self._door = door
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._poll = select.poll()  # ZeroMQ's own would use the sockets
        for watched in (router, self._ear, *(() if door is None else door.sockets)):
            self._poll.register(watched.fileno(), select.POLLIN)

    def wait(self, patience: int) -> None:
        """Return after `patience` [ms], or earlier if there is something to do."""
        ready = [descriptor for descriptor, _ in self._poll.poll(patience)]
        if self._ear.fileno() in ready:
            self._ear.recv(4096)
        if self._door is not None:
            self._door.look()

    def ring(self) -> None:
        """End the wait, or the next one; returns at once."""
        with suppress(BlockingIOError, OSError):  # full: it is awake already; closed: nobody is left to wake
            self._bell.send(b"\0")

    def close(self) -> None:
        """Wait no more."""
        self._bell.close()
        self._ear.close()
        if self._door is not None:
            self._door.close()
