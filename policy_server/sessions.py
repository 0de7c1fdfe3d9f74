"""Whose memory a policy holds: a session's is forgotten when nobody uses it, or when somebody else does (no zmq)."""

import math


class Sessions:
    """Says which sessions a policy has to forget, and when.

    A session's memory belongs to the connection that built it. When another one uses the same name, for example two
    robots that both call themselves `default`, the policy forgets first, so that neither acts on what the other saw.

    Args:
        idle: [s] after which an unused session is forgotten.
        most: sessions remembered at once; beyond them the one used longest ago is forgotten.
    """

    def __init__(self, idle: float = 600.0, most: int = 1024) -> None:
        self._idle = idle
        self._most = most
        self._used: dict[str, tuple[bytes, float]] = {}  # session -> owner, time of last use [s]; oldest first

    def __len__(self) -> int:
        return len(self._used)

    def is_foreign(self, session: str, client: bytes) -> bool:
        """Whether the policy may remember what another client showed it under this name."""
        return session in self._used and self._used[session][0] != client

    def used(self, session: str, client: bytes, now: float) -> None:
        """Record that the policy was asked on behalf of this client; `b""` is nobody, and foreign to everyone."""
        self._used.pop(session, None)
        self._used[session] = client, now

    def forgotten(self, session: str) -> None:
        """Record that the policy remembers nothing of this session."""
        self._used.pop(session, None)

    def take_idle(self, now: float) -> list[str]:
        """The sessions that the policy should forget now; they count as forgotten."""
        surplus = len(self._used) - self._most
        stale: list[str] = []
        for session, (_, last) in self._used.items():  # the rest were used later still
            if len(stale) >= surplus and now < last + self._idle:
                break
            stale.append(session)
        for session in stale:
            del self._used[session]
        return stale

    def due(self) -> float:
        """[s] when a session will have been unused for too long; infinity if there is none."""
        return next((last + self._idle for _, last in self._used.values()), math.inf)
