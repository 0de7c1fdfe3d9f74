"""The ports that a server listens at: which there are, and whether they are free (no zmq)."""

import socket

from vla.api import InputError

LARGEST = 65535


def read_port(address: str, port: str) -> int:
    """The port of an address, from its digits.

    Raises:
        InputError: if there is no such port.
    """
    if len(port) > len(str(LARGEST)) or int(port) > LARGEST:
        raise InputError(f"{address} has a port that does not exist: the largest one is {LARGEST}")
    return int(port)


def bare(host: str) -> str | None:
    """The host of an address as sockets know it; `*` is every address of this machine, for them None."""
    return None if host == "*" else host.strip("[]")


def check_free(address: str, host: str, port: int) -> None:
    """Listen for a moment, before a policy is loaded for minutes in vain.

    Args:
        address: as the user gave it.
        host: of the address.
        port: 0 takes a free one.

    Raises:
        InputError: if the port is taken or this machine does not have the address.
    """
    try:
        found = socket.getaddrinfo(bare(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, place = found[0]
        socket.create_server(place[:2], family=family).close()
    except OSError as error:
        raise InputError(f"cannot serve at {address}: {error.strerror}; choose another port or address") from None
