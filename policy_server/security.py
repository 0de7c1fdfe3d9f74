"""Who may talk to a server: CURVE key pairs in files, and an allow-list of the clients' public keys (zmq only).

A key file is the text that pyzmq's certificates are, so its tools read them too: `<name>.key` holds the public key, to
give away; `<name>.key_secret` holds both and stays where it is. Encryption is ZeroMQ's CurveZMQ (RFC 26); whether a
client's key is on the list is asked by ZAP (RFC 27), before the server reads a word of what that client sends.
"""

import logging
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import zmq
from zmq.utils import z85

from vla.api import InputError

log = logging.getLogger(__name__)

PUBLIC, SECRET = ".key", ".key_secret"
DOMAIN = b"cadence"
ZAP = "inproc://zeromq.zap.01"
QUIET = 1.0  # [s] between two lines of the log about clients that were turned away
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = r'^\s*{}-key\s*=\s*"([^"\s]{{40}})"\s*$'


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, in Z85.

    Attributes:
        public: 40 characters to give away.
        secret: 40 characters to keep.
    """

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ServerKeys:
    """What a server needs.

    Attributes:
        pair: its own.
        clients: folder with the public keys of the clients that may connect; read again for each new connection.
    """

    pair: KeyPair
    clients: Path


@dataclass(frozen=True)
class ClientKeys:
    """What a client needs.

    Attributes:
        pair: its own.
        server: the server's public key.
    """

    pair: KeyPair
    server: bytes


def server_keys(secret: str | Path, clients: str | Path) -> ServerKeys:
    """Read a server's secret key file, and check the folder of its clients' public keys.

    Raises:
        InputError: on a file that is missing, damaged or open to others, or a folder without keys.
    """
    if not read_allowed(Path(clients)):
        raise InputError(f"{clients} holds no public key (*{PUBLIC}): nobody could connect")
    return ServerKeys(read_pair(Path(secret)), Path(clients))


def client_keys(secret: str | Path, server: str | Path) -> ClientKeys:
    """Read a client's secret key file and the server's public one.

    Raises:
        InputError: on a file that is missing, damaged or open to others.
    """
    return ClientKeys(read_pair(Path(secret)), read_public(Path(server)))


def write_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a key pair and write it; only the owner can read the secret file, from its first byte on.

    Returns:
        the public and the secret file.

    Raises:
        InputError: on a name that is no file name, a file that exists already, or a folder that cannot be written.
    """
    if NAME.fullmatch(name) is None:
        raise InputError(f"a key's name is at most 64 letters, digits, dots, dashes and underscores, got {name!r}")
    public, secret = zmq.curve_keypair()
    lines = f'metadata\n    name = "{name}"\ncurve\n    public-key = "{public.decode()}"\n'
    paths = folder / f"{name}{PUBLIC}", folder / f"{name}{SECRET}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_new(paths[1], f'{lines}    secret-key = "{secret.decode()}"\n', 0o600)
        _write_new(paths[0], lines, 0o644)
    except FileExistsError as error:
        raise InputError(f"{error.filename} exists already; remove it first if nobody uses it any more") from None
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from error
    return paths


def read_public(path: Path) -> bytes:
    """The public key in a file.

    Raises:
        InputError: if it is missing or holds none.
    """
    return _key(path, _text(path), "public")


def read_pair(path: Path) -> KeyPair:
    """The key pair in a secret file.

    Raises:
        InputError: if it is missing, holds none, or others than its owner can read it.
    """
    text = _text(path)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path} can be read by others than its owner: chmod 600 {path}")
    return KeyPair(_key(path, text, "public"), _key(path, text, "secret"))


def read_allowed(folder: Path) -> dict[bytes, str]:
    """Public key -> name, of every public key file in a folder.

    Raises:
        InputError: if the folder or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} with the public keys of clients")
    return {read_public(path): path.stem for path in sorted(folder.glob(f"*{PUBLIC}"))}


def protect_server(router: "zmq.Socket[bytes]", keys: ServerKeys) -> None:
    """Let a socket that is not bound yet accept only encrypted connections that a `Doorkeeper` lets in."""
    router.curve_server = True
    router.curve_publickey, router.curve_secretkey = keys.pair.public, keys.pair.secret
    router.zap_domain = DOMAIN
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def guard(router: "zmq.Socket[bytes]", keys: ServerKeys | None) -> "Doorkeeper | None":
    """Protect a socket that is not bound yet, and who is to answer for it; None if there are no keys."""
    if keys is None:
        return None
    protect_server(router, keys)
    return Doorkeeper(router.context, keys.clients)


def protect_client(dealer: "zmq.Socket[bytes]", keys: ClientKeys) -> None:
    """Let a socket that is not connected yet speak to the server with this key alone."""
    dealer.curve_publickey, dealer.curve_secretkey = keys.pair.public, keys.pair.secret
    dealer.curve_serverkey = keys.server


class Doorkeeper:
    """Lets in the clients whose keys are in the folder; belongs to the thread that polls `socket`.

    Args:
        context: of the server's socket; `socket` is bound in it before that one is.
        clients: folder of public keys.
        clock: [s], for the log's sake.
    """

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", clients: Path, clock: Callable[[], float] = monotonic
    ) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ZAP)
        self._clients = clients
        self._clock = clock
        self._allowed: dict[bytes, str] = {}
        self._quiet_until = 0.0
        self._unsaid = 0

    def answer(self) -> None:
        """Answer one question that waits."""
        version, request, domain, address, _, mechanism, *credentials = self.socket.recv_multipart()
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and domain == DOMAIN else b""
        name = self._read_allowed().get(key)
        if name is None:
            self._complain(address, key)
        verdict = (b"400", b"unknown key", b"") if name is None else (b"200", b"OK", name.encode())
        self.socket.send_multipart([version, request, *verdict, b""])

    def _read_allowed(self) -> dict[bytes, str]:
        """The list as it is now; as it was if somebody broke a file."""
        try:
            self._allowed = read_allowed(self._clients)
        except InputError as error:
            log.warning("keeping the list of clients as it was: %s", error)
        return self._allowed

    def _complain(self, address: bytes, key: bytes) -> None:
        if (now := self._clock()) < self._quiet_until:
            self._unsaid += 1
            return
        log.warning("turned away %a with unknown key %a (and %d before)", address.decode(), key.decode(), self._unsaid)
        self._quiet_until, self._unsaid = now + QUIET, 0


def _write_new(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the key file {path}: {error}") from None


def _key(path: Path, text: str, kind: str) -> bytes:
    found = re.findall(_KEY.format(kind), text, re.MULTILINE)
    if len(found) != 1:
        raise InputError(f"{path} needs exactly one {kind}-key of 40 characters; cadence-keys writes such files")
    try:
        z85.decode(found[0].encode("ascii"))
    except (KeyError, UnicodeEncodeError):
        raise InputError(f"{path} has a {kind}-key that is not Z85; cadence-keys writes such files") from None
    return found[0].encode()
