"""Whatever bytes come, decoding them gives a message or a WireError."""

import json
import string
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from policy_server import messages, wire
from policy_server.wire import Message, decode, encode
from tests.policies import SPEC
from tests.policy_server.test_wire import GOLDEN
from vla.api import InputError

QUICK = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
VALID = [[bytes(frame) for frame in encode(message)] for message, _ in GOLDEN.values()]


INSERTED = [b"[", b"-", b"9" * 30, b'"', b"null", b"{}", b"\\u0000", b"1e9"]


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """A valid message after a few edits of its bytes and frames."""
    frames = [bytearray(frame) for frame in draw(st.sampled_from(VALID))]
    for _ in range(draw(st.integers(1, 4))):
        frame = frames[draw(st.integers(0, len(frames) - 1))]
        place = draw(st.integers(0, len(frame)))
        edit = draw(st.sampled_from(["replace", "insert", "cut", "copy frame", "drop frame"]))
        if edit == "replace":
            frame[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif edit == "insert":
            frame[place:place] = draw(
                st.sampled_from([b"[", b"-", b"9" * 30, b'"', b"null", b"{}", b"\\u0000", b"1e9"])
            )
        elif edit == "cut":
            del frame[place : place + draw(st.integers(1, 20))]
        elif edit == "copy frame":
            frames.append(bytearray(frame))
        elif len(frames) > 1:
            frames.pop()
    return [bytes(frame) for frame in frames]


TOKENS = st.sampled_from([*wire.HEADER, *wire.DTYPES, *wire.KINDS, "state", "image/front", "", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TOKENS | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TOKENS, inner, max_size=4),
    max_leaves=12,
)


@settings(QUICK, max_examples=1000)
@given(mutated())
@example([b"{}"])
def test_mutated_messages_decode_or_are_refused(frames: list[bytes]) -> None:
    survive(frames)


@settings(QUICK, max_examples=200)
@given(st.fixed_dictionaries(dict.fromkeys(wire.HEADER, VALUES)), st.lists(st.binary(max_size=16), max_size=3))
def test_arbitrary_json_decodes_or_is_refused(plain: dict[str, Any], frames: list[bytes]) -> None:
    survive([json.dumps(plain).encode(), *frames])
    survive([json.dumps({**plain, "version": 1}).encode(), *frames])


@settings(QUICK, max_examples=200)
@given(st.sampled_from(["hello", "infer", "error"]), VALUES, TOKENS, VALUES)
def test_arbitrary_bodies_are_read_or_refused(kind: str, body: Any, key: str, value: Any) -> None:
    plain = json.loads(VALID[list(GOLDEN).index(kind)][0])
    plain["body"] = {**plain["body"], key: value} if isinstance(body, list) else body
    survive([json.dumps(plain).encode(), *VALID[list(GOLDEN).index(kind)][1:]])
    for name in json.loads(VALID[list(GOLDEN).index(kind)][0])["body"]:
        plain["body"] = {**json.loads(VALID[list(GOLDEN).index(kind)][0])["body"], name: value}
        survive([json.dumps(plain).encode(), *VALID[list(GOLDEN).index(kind)][1:]])


READERS: dict[str, list[Callable[[Message], object]]] = {
    "hello": [messages.read_hello, messages.read_welcome],
    "infer": [lambda message: messages.read_infer(message, SPEC), lambda message: messages.read_actions(message, SPEC)],
    "reset": [messages.empty],
    "health": [messages.empty],
    "error": [messages.read_failure],
}


def survive(frames: list[bytes]) -> None:
    """Decode and read as client and server do; the only way to fail is InputError."""
    with suppress(InputError):
        message = decode(frames)
        encode(message)
        for read in READERS[message.kind]:
            with suppress(InputError):
                read(message)
