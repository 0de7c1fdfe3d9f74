"""The wire between robots and a policy server, version 2. This text is the specification.

**Sockets.** The server is a ZeroMQ ROUTER, the client a DEALER or a REQ, over TCP. A message is an envelope, one empty
delimiter frame, a header frame and one frame per array. A DEALER sends the delimiter itself; REQ does it unasked. The
server sends back every frame before the delimiter unchanged, so REQ with `ZMQ_REQ_CORRELATE` works too.

**Header.** UTF-8 JSON, one object with exactly these keys:

    version      int     2. Compared before anything else is read; another number is refused with error type `version`.
    kind         str     hello | infer | reset | health | metrics | error
    session      str     a name, of one robot and one episode; "" where it has no meaning
    seq          int     from 1, echoed by the reply. A client makes it greater in every message, to tell late replies
                         from the one it waits for. 0 only in an error reply to a message whose own could not be read
    deadline_ms  number  or null. The server refuses a request that waited longer than this, counted from its arrival
    codec        str     raw | png | jpeg: how arrays whose names begin with `image/` travel
    timing       object  stage -> milliseconds; {} in requests and in errors
    body         object  what this kind says, see below
    arrays       list    of [name, dtype, shape], one for each frame that follows, in order; names are unique

A name is at most 256 characters, none of them a control character (C0, DEL, C1) or half of a surrogate pair: what one
robot calls itself ends in the logs, files and terminals of others.

**Arrays.** Each frame holds one array: C order, little endian, exactly `product(shape) * itemsize` bytes. Dtypes are
bool, uint8, int32, int64, float32 and float64; a bool is one byte, 0 or 1. Limits: 64 KiB of header, 64 arrays of at
most 8 dimensions, 64 MiB for all arrays together. Nothing on the wire names code or is ever executed.

**Images.** With codec png or jpeg, the frame of an array `image/...` is one file of that format instead: RGB, of the
described size exactly, and at most 64 KiB larger than the array. Such an array is described as what it is after
decoding, uint8 (height, width, 3). A client uses only what `codecs` of hello's reply lists. JPEG changes what the
policy sees.

**Kinds.** A reply has the kind of its request, or `error`. Unknown keys in a body are refused.

    hello   asks   {"embodiment": null or {"cameras": [[name, height, width]], "state": [[name, unit]],
                    "actions": [[name, unit]], "period": seconds}}: what the client will send and expects back. The
                    server refuses it with error type `spec`, naming both sides, if the policy needs something else.
            reply  {"spec": {"cameras", "state", "actions", "horizon", "period", "model", "recipe", "checkpoint",
                    "inpaints", "resize"}, "spec_id": text, "codecs": [text]}. If `resize` is [strategy, side], images
                    may also be sent as (side, side, 3), resized as `vla.resampling.square` does
    infer   asks   {"instruction": text, "step": int, "time": seconds, "frozen": int, "spec_id": text or null}; arrays
                    `image/<camera>` uint8 (height, width, 3) RGB and, if the policy reads one, `state` float32 (S,). If
                    the spec says `inpaints`, also `committed` float32 (rows, A): the actions that the robot executes
                    otherwise, `frozen` of them before the answer comes; the reply begins with those. A `spec_id` that
                    is not the server's is refused with `spec`: the server was restarted with another policy.
            reply  {"period": seconds between rows, "codec": of the request}; array `actions` float32 (horizon, A) in
                    physical units
    reset   asks   {}: forget this session; takes effect between the requests sent before and after it
            reply  {}
    health  asks   {}
            reply  {"status": "ready" | "stopping", "busy_ms": number or null, "pending": int, "sessions": int,
                    "served": int, "failed": int}; busy_ms: how long the policy has been running; sessions: those it may
                    remember something of
    metrics asks   {}
            reply  {"uptime": seconds, "rate": answers per second lately, "outcomes": {"answered", "reset" or an error
                    type: int}, "late": answers that left after their deadline, "busy_ms": number or null,
                    "queue_age_ms": of the request that has waited longest, or null, "pending": int, "sessions": int,
                    "stages": {stage: {"n", "p50", "p90", "p99"} in milliseconds}, "robots": [[session, answers, seconds
                    since the last]], "resident_bytes": int or null, "gpu_bytes": null or {"allocated", "reserved",
                    "peak"}, "watchers": [{"name", …}]}
    error   reply  {"type": text, "message": text, "hint": text}; type is one of
                    malformed (not this protocol), version, spec, input (an observation the policy cannot use),
                    superseded (a newer observation of the same session came), expired (deadline_ms passed),
                    overloaded (too many requests wait), stopping, internal (the policy failed).

**Order.** `hello`, `health` and `metrics` are answered at once, also while the policy runs. One `infer` per client and
session waits at a time: a newer one takes its place and the older is answered with `superseded`. Clients take turns,
and a server may answer several sessions in one call of its policy.

**Sessions.** What a policy remembers of a session belongs to the connection that showed it. It is forgotten before
another connection uses the same name, when the session is reset, and when nobody has used it for a while.

**Security.** Over a network both sides use CurveZMQ (RFC 26), and the server lets in the clients whose public keys it
knows (`policy_server.security`). No message stops a server. ZeroMQ gathers a message's frames before anyone can judge
their number, so an address that strangers can reach without keys is open to exhaustion of memory.

**Timing** of replies to `infer`, beside the policy's own stages, and to `reset`: `wire_decode` (arrival to the end of
decoding), `queue` (from there to the policy's start), `image_decode` if images were packed, and `server` (arrival to
the reply's header). Replies to `hello`, `health` and `metrics` have `server` alone, errors nothing. `RemotePolicy` adds
`round_trip` to a chunk.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any

from numpy.typing import NDArray

from policy_server.arrays import (
    CODECS,
    RAW,
    Frame,
    Packed,
    array_bytes,
    check_descriptions,
    decode_arrays,
    descriptions,
    dtype_name,
)
from policy_server.checks import NAME, WireError, is_integer, is_mapping, is_name, is_number, show

VERSION = 2  # 2: committed actions, codecs, resize, metrics
KINDS = ("hello", "infer", "reset", "health", "metrics", "error")
MAX_HEADER_BYTES = 64 * 1024
MAX_REMEMBERED = 4096  # characters of a description of arrays that is kept for the next message

HEADER = ("version", "kind", "session", "seq", "deadline_ms", "codec", "timing", "body", "arrays")


@dataclass(frozen=True, eq=False)
class Message:
    """One message without its envelope; the attributes are the header's keys.

    `packed` has the arrays that the codec packed, `arrays` all others.

    Raises:
        WireError: on a value that the specification does not allow.
    """

    kind: str
    seq: int
    session: str = ""
    deadline_ms: float | None = None
    codec: str = RAW
    timing: Mapping[str, float] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    packed: Mapping[str, Packed] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise WireError(f"kind must be one of {KINDS}, got {show(self.kind)}")
        if not is_integer(self.seq) or (self.seq == 0 and self.kind != "error"):
            raise WireError(f"seq must be an integer from 1 to 2^63 - 1, or 0 in an error, got {show(self.seq)}")
        if not is_name(self.session):
            raise WireError(f"session must be {NAME}, got {show(self.session)}")
        deadline = self.deadline_ms
        if deadline is not None and not (is_number(deadline) and deadline > 0):
            raise WireError(f"deadline_ms must be null or positive, got {show(deadline)}")
        if self.codec not in CODECS:
            raise WireError(f"codec must be one of {CODECS}, got {show(self.codec)}")
        if not (is_mapping(self.timing) and all(map(is_number, self.timing.values()))):
            raise WireError(f"timing must map stages to finite numbers, got {show(self.timing)}")
        if not is_mapping(self.body):
            raise WireError(f"body must be an object, got {show(self.body)}")


def encode(message: Message) -> list[Frame]:
    """Header frame and one frame per array. Array frames share memory with the arrays where layout allows.

    Raises:
        WireError: on a dtype outside the closed list or a message over the limits.
    """
    layout = [(name, dtype_name(array), array.shape) for name, array in message.arrays.items()]
    layout += [(name, "uint8", packed.shape) for name, packed in message.packed.items()]
    plain = {
        "version": VERSION,
        "kind": message.kind,
        "session": message.session,
        "seq": message.seq,
        "deadline_ms": message.deadline_ms,
        "codec": message.codec,
        "timing": dict(message.timing),
        "body": dict(message.body),
    }
    header = f'{_write_json(plain)[:-1]},"arrays":{descriptions(tuple(layout))}}}'.encode()
    if len(header) > MAX_HEADER_BYTES:
        raise WireError(f"the header has {len(header)} bytes, at most {MAX_HEADER_BYTES} allowed")
    raw = [array_bytes(array) for array in message.arrays.values()]
    return [header, *raw, *[packed.frame for packed in message.packed.values()]]


def decode(frames: Sequence[Frame]) -> Message:
    """The message in these frames (without envelope and delimiter). Arrays are read-only views of the frames.

    Raises:
        WireError: on anything the specification does not allow; never another exception.
    """
    header, sizes = _parse_header(frames)
    try:
        _check_version(header)
        if header.keys() != _KEYS:
            raise WireError(f"the header needs exactly the keys {list(HEADER)}, got {show(sorted(header))}")
        arrays, packed = decode_arrays(header["arrays"], frames[1:], header["codec"], sizes)
        return Message(*_PLAIN(header), arrays=arrays, packed=packed)
    except WireError as error:
        error.seq = header["seq"] if is_integer(header.get("seq")) else 0
        raise


def _parse_header(frames: Sequence[Frame]) -> tuple[dict[str, Any], list[int] | None]:
    """The header, and the bytes of each array if its description is allowed and was met before."""
    if not frames:
        raise WireError("the message has no header frame")
    size = len(frames[0])
    if size > MAX_HEADER_BYTES:
        raise WireError(f"the header has {size} bytes, at most {MAX_HEADER_BYTES} are allowed")
    try:
        text = str(frames[0], "utf-8")
        if (quick := _read_quickly(text)) is not None:
            return quick
        header = _read_json(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the header is not UTF-8 JSON: {show(str(error))}") from None
    if not isinstance(header, dict):
        raise WireError(f"the header must be a JSON object, got {show(header)}")
    return header, None


def _read_quickly(text: str) -> tuple[dict[str, Any], list[int]] | None:
    """The header if its arrays come last, as `encode` writes it; None if they do not, or anything is wrong.

    From one message to the next of a robot the arrays' description is the same text, which is read and judged once.
    What is before it is read as an object of its own: if that ends well, text in between was no part of another value.
    """
    start, comma, described = text.rpartition(_ARRAYS)
    if not comma or len(described) > MAX_REMEMBERED:
        return None
    try:
        header, end = _DECODER.raw_decode(start + "}")
        arrays, sizes = _described(described)
    except (ValueError, RecursionError):  # a WireError is a ValueError
        return None
    if end <= len(start) or "arrays" in header:
        return None
    header["arrays"] = arrays
    return header, sizes


@lru_cache(maxsize=64)
def _described(text: str) -> tuple[list[Any], list[int]]:
    """What stands behind `"arrays":` up to the header's end, and the bytes of each array.

    Raises:
        ValueError: if it is no JSON, or more or less than a list and the end of the header.
        WireError: if it describes what is not allowed.
    """
    arrays, end = _DECODER.raw_decode(text)
    if text[end:] != "}":
        raise ValueError("the header does not end behind its arrays")
    return arrays, check_descriptions(arrays)


def _read_json(text: str) -> object:
    """What the text says; white space around it costs a second reading, and is looked for only if there is some."""
    if text[:1] == "{":
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    return _DECODER.decode(text)


def _json_writer() -> Callable[[object], str]:
    """`JSONEncoder.encode`, its parts made once: it makes them in each call, which takes longer than to write."""
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
    parts = (None, encoder.default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    try:
        pieces = json.encoder.c_make_encoder(*parts)  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, TypeError):  # an interpreter whose json has no such C part, or another one
        return encoder.encode
    return lambda value: "".join(pieces(value, 0))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _check_version(header: Mapping[str, Any]) -> None:
    version = header.get("version")
    if type(version) is not int or version != VERSION:
        raise WireError(
            f"the sender speaks wire version {show(version)}, the receiver speaks version {VERSION}",
            type="version",
            hint="install the same cadence-vla version on the robot and on the server",
        )


_KEYS = frozenset(HEADER)
_ARRAYS = ',"arrays":'
_PLAIN = itemgetter("kind", "seq", "session", "deadline_ms", "codec", "timing", "body")  # as Message takes them
_write_json = _json_writer()
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
