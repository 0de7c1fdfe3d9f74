"""Who may talk to a server: CURVE key pairs in files, and an allow-list of the clients' public keys (zmq only).

A key file is the text that pyzmq's certificates are, so its tools read them too: `<name>.key` holds the public key, to
give away; `<name>.key_secret` holds both and stays where it is. Encryption is ZeroMQ's CurveZMQ (RFC 26); whether a
client's key is on the list is asked by ZAP (RFC 27), see `policy_server.door`.
"""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from vla.api import InputError

PUBLIC, SECRET = ".key", ".key_secret"
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
    allowed, wrong = read_allowed(Path(clients))
    if wrong:
        raise wrong[0]
    if not allowed:
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
    if _keys(text, "public") and not _keys(text, "secret"):
        raise InputError(f"{path} holds no secret: name the *{SECRET} file; cadence-keys writes such files in pairs")
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"{path} can be read by others than its owner: chmod 600 {path}")
    return KeyPair(_key(path, text, "public"), _key(path, text, "secret"))


def read_allowed(folder: Path) -> tuple[dict[bytes, str], list[InputError]]:
    """Public key -> name, of every public key file in a folder that can be read, and what is wrong with the others."""
    allowed: dict[bytes, str] = {}
    wrong: list[InputError] = []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == PUBLIC)
    except OSError as error:
        return {}, [InputError(f"there is no folder {folder} with the public keys of clients: {error.strerror}")]
    for path in paths:
        try:
            allowed[read_public(path)] = path.stem
        except InputError as error:  # noqa: PERF203 - one damaged file must not keep the others from being read
            wrong.append(error)
    return allowed, wrong


def protect_client(dealer: "zmq.Socket[bytes]", keys: ClientKeys) -> None:
    """Let a socket that is not connected yet speak to the server with this key alone."""
    dealer.curve_publickey, dealer.curve_secretkey = keys.pair.public, keys.pair.secret
    dealer.curve_serverkey = keys.server


def _write_new(path: Path, text: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the key file {path}: {error}") from None


def _key(path: Path, text: str, kind: str) -> bytes:
    found = _keys(text, kind)
    if len(found) != 1:
        raise InputError(f"{path} needs exactly one {kind}-key of 40 characters; cadence-keys writes such files")
    try:
        z85.decode(found[0].encode("ascii"))
    except (KeyError, UnicodeEncodeError):
        raise InputError(f"{path} has a {kind}-key that is not Z85; cadence-keys writes such files") from None
    return found[0].encode()


def _keys(text: str, kind: str) -> list[str]:
    return re.findall(_KEY.format(kind), text, re.MULTILINE)
