"""The wire between robots and a policy server, version 2. This text is the specification.

**Sockets.** The server is a ZeroMQ ROUTER, the client a DEALER or a REQ, over TCP. A message is an envelope, one empty
delimiter frame, a header frame and one frame per array. A DEALER sends the delimiter itself; REQ does it unasked. The
server sends back every frame before the delimiter unchanged, so REQ with `ZMQ_REQ_CORRELATE` works too.

**Header.** UTF-8 JSON, one object with exactly these keys:

    version      int     2. Compared before anything else is read; another number is refused with error type `version`.
    kind         str     hello | infer | reset | health | metrics | error
    session      str     one robot, one episode; at most 256 characters; "" where it has no meaning
    seq          int     from 1, echoed by the reply. A client makes it greater in every message, to tell late replies
                         from the one it waits for. 0 only in an error reply to a message whose own could not be read
    deadline_ms  number  or null. The server refuses a request that waited longer than this, counted from its arrival
    codec        str     raw | png | jpeg: how arrays whose names begin with `image/` travel
    timing       object  stage -> milliseconds; {} in requests and in errors
    body         object  what this kind says, see below
    arrays       list    of [name, dtype, shape], one for each frame that follows, in order; names are unique

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from policy_server.arrays import CODECS, RAW, Frame, Packed, array_bytes, check_descriptions, decode_arrays, dtype_name
from policy_server.checks import MAX_NAME, WireError, is_integer, is_name, is_number, require, show

VERSION = 2  # 2: committed actions, codecs, resize, metrics
KINDS = ("hello", "infer", "reset", "health", "metrics", "error")
MAX_HEADER_BYTES = 64 * 1024

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
        require(self.kind in KINDS, lambda: f"kind must be one of {KINDS}, got {show(self.kind)}")
        numbered = is_integer(self.seq) and (self.seq > 0 or self.kind == "error")
        require(numbered, lambda: f"seq must be an integer from 1 to 2^63 - 1, or 0 in an error, got {show(self.seq)}")
        require(is_name(self.session), lambda: f"session must be text of at most {MAX_NAME}, got {show(self.session)}")
        deadline = self.deadline_ms
        allowed = deadline is None or (is_number(deadline) and deadline > 0)
        require(allowed, lambda: f"deadline_ms must be null or positive, got {show(deadline)}")
        require(self.codec in CODECS, lambda: f"codec must be one of {CODECS}, got {show(self.codec)}")
        milliseconds = isinstance(self.timing, Mapping) and all(map(is_number, self.timing.values()))
        require(milliseconds, lambda: f"timing must map stages to finite numbers, got {show(self.timing)}")
        require(isinstance(self.body, Mapping), lambda: f"body must be an object, got {show(self.body)}")


def encode(message: Message) -> list[Frame]:
    """Header frame and one frame per array. Array frames share memory with the arrays where layout allows.

    Raises:
        WireError: on a dtype outside the closed list or a message over the limits.
    """
    described = [[name, dtype_name(array), list(array.shape)] for name, array in message.arrays.items()]
    described += [[name, "uint8", list(packed.shape)] for name, packed in message.packed.items()]
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
    header = _ENCODER.encode(dict(zip(HEADER, values, strict=True))).encode()
    require(
        len(header) <= MAX_HEADER_BYTES,
        lambda: f"the header has {len(header)} bytes, at most {MAX_HEADER_BYTES} allowed",
    )
    check_descriptions(described)
    raw = (array_bytes(array) for array in message.arrays.values())
    return [header, *raw, *(packed.frame for packed in message.packed.values())]


def decode(frames: Sequence[Frame]) -> Message:
    """The message in these frames (without envelope and delimiter). Arrays are read-only views of the frames.

    Raises:
        WireError: on anything the specification does not allow; never another exception.
    """
    header = _parse_header(frames)
    try:
        _check_version(header)
        complete = header.keys() == _KEYS
        require(complete, lambda: f"the header needs exactly the keys {list(HEADER)}, got {show(sorted(header))}")
        plain = {key: header[key] for key in HEADER if key not in ("version", "arrays")}
        arrays, packed = decode_arrays(header["arrays"], frames[1:], header["codec"])
        return Message(**plain, arrays=arrays, packed=packed)
    except WireError as error:
        error.seq = header["seq"] if is_integer(header.get("seq")) else 0
        raise


def _parse_header(frames: Sequence[Frame]) -> dict[str, Any]:
    require(len(frames) > 0, "the message has no header frame")
    size = len(frames[0])
    require(size <= MAX_HEADER_BYTES, lambda: f"the header has {size} bytes, at most {MAX_HEADER_BYTES} are allowed")
    try:
        header = _DECODER.decode(str(frames[0], "utf-8"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"the header is not UTF-8 JSON: {show(str(error))}") from None
    require(isinstance(header, dict), lambda: f"the header must be a JSON object, got {show(header)}")
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
            f"the sender speaks wire version {show(version)}, the receiver speaks version {VERSION}",
            type="version",
            hint="install the same cadence-vla version on the robot and on the server",
        )


_KEYS = frozenset(HEADER)
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # made once: the functions of json make one a call
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
