"""The wire between robots and a policy server, version 1. This text is the specification.

**Sockets.** The server is a ZeroMQ ROUTER, the client a DEALER or a REQ, over TCP. A message is an envelope, one empty
delimiter frame, a header frame and one frame per array. A DEALER sends the delimiter itself; REQ does it unasked. The
server sends back every frame before the delimiter unchanged, so REQ with `ZMQ_REQ_CORRELATE` works too.

**Header.** UTF-8 JSON, one object with exactly these keys:

    version      int     1. Compared before anything else is read; another number is refused with error type `version`.
    kind         str     hello | infer | reset | health | error
    session      str     one robot, one episode; at most 256 characters; "" where it has no meaning
    seq          int     from 1, echoed by the reply. A client makes it greater in every message, to tell late replies
                         from the one it waits for. 0 only in an error reply to a message whose own could not be read
    deadline_ms  number  or null. The server refuses a request that waited longer than this, counted from its arrival
    codec        str     raw
    timing       object  stage -> milliseconds; {} in requests and in errors
    body         object  what this kind says, see below
    arrays       list    of [name, dtype, shape], one for each frame that follows, in order; names are unique

**Arrays.** Each frame holds one array: C order, little endian, exactly `product(shape) * itemsize` bytes. Dtypes are
bool, uint8, int32, int64, float32 and float64; a bool is one byte, 0 or 1. Limits: 64 KiB of header, 64 arrays of at
most 8 dimensions, 64 MiB for all frames together. Nothing on the wire names code or is ever executed.

**Kinds.** A reply has the kind of its request, or `error`. Unknown keys in a body are refused.

    hello   asks   {"embodiment": null or {"cameras": [[name, height, width]], "state": [[name, unit]],
                    "actions": [[name, unit]], "period": seconds}}: what the client will send and expects back. The
                    server refuses it with error type `spec`, naming both sides, if the policy needs something else.
            reply  {"spec": {"cameras", "state", "actions", "horizon", "period", "model", "recipe", "checkpoint"},
                    "spec_id": text}
    infer   asks   {"instruction": text, "step": int, "time": seconds, "spec_id": text or null}; arrays `image/<camera>`
                    uint8 (height, width, 3) RGB and, if the policy reads one, `state` float32 (S,). A `spec_id` that is
                    not the server's is refused with `spec`: the server was restarted with another policy.
            reply  {"period": seconds between rows}; array `actions` float32 (horizon, A) in physical units
    reset   asks   {}: forget this session; takes effect between the requests sent before and after it
            reply  {}
    health  asks   {}
            reply  {"status": "ready" | "stopping", "busy_ms": number or null, "pending": int, "served": int,
                    "failed": int}; busy_ms: how long the request being run has been running
    error   reply  {"type": text, "message": text, "hint": text}; type is one of
                    malformed (not this protocol), version, spec, input (an observation the policy cannot use),
                    superseded (a newer observation of the same session came), expired (deadline_ms passed),
                    overloaded (too many requests wait), stopping, internal (the policy failed).

**Order.** `hello` and `health` are answered at once, also while the policy runs. One `infer` per client and session
waits at a time: a newer one takes its place and the older is answered with `superseded`.

**Timing** of replies to `infer`, beside the policy's own stages, and to `reset`: `wire_decode` (arrival to the end of
decoding), `queue` (from there to the policy's start) and `server` (arrival to the reply's header). Replies to `hello`
and `health` have `server` alone, errors nothing. `RemotePolicy` adds `round_trip` to a chunk.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vla.api import InputError

VERSION = 1
KINDS = ("hello", "infer", "reset", "health", "error")
CODECS = ("raw",)
DTYPES = {"bool": "|b1", "uint8": "|u1", "int32": "<i4", "int64": "<i8", "float32": "<f4", "float64": "<f8"}
MAX_HEADER_BYTES = 64 * 1024
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_ARRAYS = 64
MAX_DIMENSIONS = 8
MAX_NAME = 256
MAX_INTEGER = 2**63 - 1

HEADER = ("version", "kind", "session", "seq", "deadline_ms", "codec", "timing", "body", "arrays")
Frame: TypeAlias = bytes | memoryview


class WireError(InputError):
    """A message that this protocol does not allow.

    Attributes:
        type: one of the error types of the specification.
        hint: what to do about it.
        seq: of the offending message, 0 if it could not be read.
    """

    def __init__(self, message: str, type: str = "malformed", hint: str = "", seq: int = 0) -> None:  # noqa: A002
        super().__init__(message)
        self.type = type
        self.hint = hint
        self.seq = seq


@dataclass(frozen=True, eq=False)
class Message:
    """One message without its envelope; the attributes are the header's keys.

    Raises:
        WireError: on a value that the specification does not allow.
    """

    kind: str
    seq: int
    session: str = ""
    deadline_ms: float | None = None
    codec: str = "raw"
    timing: Mapping[str, float] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.kind in KINDS, f"kind must be one of {KINDS}, got {_show(self.kind)}")
        numbered = is_integer(self.seq) and (self.seq > 0 or self.kind == "error")
        _require(numbered, f"seq must be an integer from 1 to 2^63 - 1, or 0 in an error, got {_show(self.seq)}")
        _require(is_name(self.session), f"session must be text of at most {MAX_NAME}, got {_show(self.session)}")
        deadline = self.deadline_ms
        allowed = deadline is None or (is_number(deadline) and deadline > 0)
        _require(allowed, f"deadline_ms must be null or positive, got {_show(deadline)}")
        _require(self.codec in CODECS, f"codec must be one of {CODECS}, got {_show(self.codec)}")
        milliseconds = isinstance(self.timing, Mapping) and all(map(is_number, self.timing.values()))
        _require(milliseconds, f"timing must map stages to finite numbers, got {_show(self.timing)}")
        _require(isinstance(self.body, Mapping), f"body must be an object, got {_show(self.body)}")


def encode(message: Message) -> list[Frame]:
    """Header frame and one frame per array. Array frames share memory with the arrays where layout allows.

    Raises:
        WireError: on a dtype outside the closed list or a message over the limits.
    """
    described = [[name, array.dtype.name, list(array.shape)] for name, array in message.arrays.items()]
    values = (
        VERSION,
        message.kind,
        message.session,
        message.seq,
        message.deadline_ms,
        message.codec,
        dict(message.timing),
        dict(message.body),
        described,
    )
    header = json.dumps(dict(zip(HEADER, values, strict=True)), separators=(",", ":"), allow_nan=False).encode()
    _require(len(header) <= MAX_HEADER_BYTES, f"the header has {len(header)} bytes, at most {MAX_HEADER_BYTES} allowed")
    _check_descriptions(described)
    return [header, *(_array_bytes(array) for array in message.arrays.values())]


def decode(frames: Sequence[Frame]) -> Message:
    """The message in these frames (without envelope and delimiter). Arrays are read-only views of the frames.

    Raises:
        WireError: on anything the specification does not allow; never another exception.
    """
    header = _parse_header(frames)
    try:
        _check_version(header)
        got = sorted(header)
        _require(got == sorted(HEADER), f"the header needs exactly the keys {list(HEADER)}, got {_show(got)}")
        arrays = _decode_arrays(header["arrays"], frames[1:])
        plain = {key: header[key] for key in HEADER if key not in ("version", "arrays")}
        return Message(**plain, arrays=arrays)
    except WireError as error:
        error.seq = header["seq"] if is_integer(header.get("seq")) else 0
        raise


def is_number(value: object) -> bool:
    """Whether this is a finite JSON number (true and false are not)."""
    if isinstance(value, float):
        return math.isfinite(value)
    return type(value) is int and abs(value) <= MAX_INTEGER


def is_integer(value: object) -> bool:
    """Whether this is a JSON integer from 0 to 2^63 - 1 (true and false are not)."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


def is_name(value: object) -> bool:
    """Whether this is text of at most `MAX_NAME` characters."""
    return isinstance(value, str) and len(value) <= MAX_NAME


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise WireError(message)


def _show(value: object) -> str:
    """A value for an error message: never long, and safe to print whatever it holds."""
    text = ascii(value)
    return text if len(text) <= 200 else text[:200] + " ..."


def _parse_header(frames: Sequence[Frame]) -> dict[str, Any]:
    _require(len(frames) > 0, "the message has no header frame")
    size = len(frames[0])
    _require(size <= MAX_HEADER_BYTES, f"the header has {size} bytes, at most {MAX_HEADER_BYTES} are allowed")
    try:
        header = json.loads(str(frames[0], "utf-8"), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the header is not UTF-8 JSON: {_show(str(error))}") from None
    _require(isinstance(header, dict), f"the header must be a JSON object, got {_show(header)}")
    return header


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _check_version(header: Mapping[str, Any]) -> None:
    version = header.get("version")
    if type(version) is not int or version != VERSION:
        raise WireError(
            f"the sender speaks wire version {_show(version)}, the receiver speaks version {VERSION}",
            type="version",
            hint="install the same cadence-vla version on the robot and on the server",
        )


def _check_descriptions(described: object) -> None:
    """Arrays are described as [name, dtype, shape] within the limits; sizes are judged before memory is touched."""
    _require(isinstance(described, list), f"arrays must be a list, got {_show(described)}")
    assert isinstance(described, list)
    _require(len(described) <= MAX_ARRAYS, f"{len(described)} arrays came, at most {MAX_ARRAYS} are allowed")
    total = 0
    for item in described:
        _require(isinstance(item, list) and len(item) == 3, f"an array is [name, dtype, shape], got {_show(item)}")
        name, dtype, shape = item
        _require(is_name(name), f"an array's name must be text of at most {MAX_NAME}, got {_show(name)}")
        _require(isinstance(dtype, str) and dtype in DTYPES, f"dtype must be one of {list(DTYPES)}, got {_show(dtype)}")
        _require(
            isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS and all(map(is_integer, shape)),
            f"a shape is a list of at most {MAX_DIMENSIONS} sizes, got {_show(shape)}",
        )
        total += math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    _require(total <= MAX_MESSAGE_BYTES, f"the arrays have {total} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    names = [item[0] for item in described]
    _require(len(set(names)) == len(names), f"array names must be unique, got {_show(names)}")


def _decode_arrays(described: object, frames: Sequence[Frame]) -> dict[str, NDArray[Any]]:
    _check_descriptions(described)
    assert isinstance(described, list)
    _require(len(described) == len(frames), f"{len(described)} arrays are described, {len(frames)} frames came")
    pairs = zip(described, frames, strict=True)
    return {name: _decode_array(name, dtype, shape, frame) for (name, dtype, shape), frame in pairs}


def _decode_array(name: str, dtype: str, shape: list[int], frame: Frame) -> NDArray[Any]:
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    _require(len(frame) == needed, f"array {_show(name)} {dtype} {shape} needs {needed} bytes, got {len(frame)}")
    try:
        array = np.ndarray(shape, DTYPES[dtype], buffer=frame)
    except ValueError as error:  # a size 0 beside one beyond what numpy can index
        raise WireError(f"array {_show(name)} has an impossible shape {_show(shape)}: {error}") from None
    if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
        raise WireError(f"array {_show(name)} is bool and holds bytes other than 0 and 1")
    array.flags.writeable = False
    return array


def _array_bytes(array: NDArray[Any]) -> Frame:
    """The bytes of an array, C order, little endian; shares memory where it can."""
    flat = np.ascontiguousarray(array, dtype=DTYPES[array.dtype.name]).reshape(-1)
    return flat.view(np.uint8).data if flat.size else b""
