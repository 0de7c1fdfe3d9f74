"""What robot and server do alike with their ZeroMQ sockets (pyzmq only).

pyzmq's own multipart functions ask the socket after every frame whether there is more, and combine members of
enumerations for every frame: for small frames that takes longer than the frame.
"""

import math
import re
from collections.abc import Sequence

import zmq

from policy_server.arrays import Frame

MORE, NOBLOCK, POLLIN = int(zmq.SNDMORE), int(zmq.NOBLOCK), int(zmq.POLLIN)
LONGEST = 2_000_000.0  # [s]
LENT = 512 * 1024  # [bytes] frames from this size on are not copied; below, a copy is faster than the bookkeeping
LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|localhost|\[::1\]")
CACHED = 256 * 1024  # [bytes] on their way to a reader on this machine, so that it finds them in the processor's cache


def send(socket: "zmq.Socket[bytes]", frames: Sequence[Frame], flags: int = 0) -> None:
    """Send a message; its large frames must not change before it has left.

    Raises:
        zmq.ZMQError: `Again` with NOBLOCK or after the socket's SNDTIMEO, if there is no room; nothing was sent then.
    """
    *first, last = frames
    for frame in first:
        socket.send(frame, flags | MORE, copy=len(frame) < LENT)
    socket.send(last, flags, copy=len(last) < LENT)


def receive(socket: "zmq.Socket[bytes]", flags: int = 0) -> list[zmq.Frame]:
    """A message's frames, not copied.

    Raises:
        zmq.ZMQError: `Again` with NOBLOCK or after the socket's RCVTIMEO, if none came.
    """
    frame = socket.recv(flags, copy=False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(flags, copy=False)
        frames.append(frame)
    return frames


def readable(socket: "zmq.Socket[bytes]") -> bool:
    """Whether a message has come."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & POLLIN)


def milliseconds(seconds: float) -> int:
    """For a socket's timeout: not less than that, and no more than ZeroMQ can count."""
    return math.ceil(1000 * min(max(0.0, seconds), LONGEST))


def send_buffer(endpoint: str) -> int:
    """[bytes] that the kernel should hold of what is sent to `tcp://host:port`; -1 lets it decide.

    Left alone it takes several megabytes from a sender and hands them over when they have left the processor's cache,
    which takes twice as long; over a network it needs them.
    """
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return CACHED if LOOPBACK.fullmatch(host) else -1
