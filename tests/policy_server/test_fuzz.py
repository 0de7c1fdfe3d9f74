"""Whatever bytes come, decoding them gives a message or a WireError, and a server goes on serving the others.

Hypothesis finds and shrinks, in 3,000 messages; the loop over a seed makes 100,000, thirty times faster. CADENCE_FUZZ=n
makes n in both.
"""

import json
import os
import string
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from policy_server import arrays, messages, wire
from policy_server.checks import WireError
from policy_server.codecs import Codec
from policy_server.server import PolicyServer
from policy_server.wire import Message, decode, encode
from tests.policies import SPEC, observation
from tests.policy_server.sockets import Connect, Raw, infer
from tests.policy_server.test_wire import GOLDEN
from vla.api import InputError

QUICK = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
MUTATIONS, MANY = (int(os.environ.get("CADENCE_FUZZ", default)) for default in ("3000", "100000"))
PACKED = [messages.infer(1, observation(), None, None, Codec(name)) for name in ("png", "jpeg")]
VALID = [[bytes(frame) for frame in encode(message)] for message in [*(m for m, _ in GOLDEN.values()), *PACKED]]
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
            frame[place:place] = draw(st.sampled_from(INSERTED))
        elif edit == "cut":
            del frame[place : place + draw(st.integers(1, 20))]
        elif edit == "copy frame":
            frames.append(bytearray(frame))
        elif len(frames) > 1:
            frames.pop()
    return [bytes(frame) for frame in frames]


TOKENS = st.sampled_from([*wire.HEADER, *arrays.DTYPES, *wire.KINDS, "state", "image/front", "", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TOKENS | st.text(string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TOKENS, inner, max_size=4),
    max_leaves=12,
)


@settings(QUICK, max_examples=MUTATIONS)
@given(mutated())
@example([b"{}"])
@example([b'{"arrays":[],"arrays":[]}'])
@example([VALID[0][0].replace(b'"body":{', b'"body":{"arrays":[],"arrays":')])
@example([VALID[0][0][:-1] + b',"arrays":[]}'])
@example([VALID[0][0][:-1] + b"]"])
def test_mutated_messages_decode_or_are_refused(frames: list[bytes]) -> None:
    """White space behind the header changes nothing, although a header without any is read in a quicker way."""
    survive(frames)
    assert outcome([frames[0] + b" ", *frames[1:]]) == outcome(frames)


@pytest.mark.timeout(1800)
def test_many_mutated_messages_decode_or_are_refused() -> None:
    random = Random(0)
    for _ in range(MANY):
        frames = list(random.choice(VALID))
        place = random.randrange(len(frames))
        frames[place] = mutation(random, frames[place], INSERTED)
        survive(frames)


@settings(QUICK, max_examples=200)
@given(st.fixed_dictionaries(dict.fromkeys(wire.HEADER, VALUES)), st.lists(st.binary(max_size=16), max_size=3))
def test_arbitrary_json_decodes_or_is_refused(plain: dict[str, Any], frames: list[bytes]) -> None:
    survive([json.dumps(plain).encode(), *frames])
    survive([json.dumps({**plain, "version": wire.VERSION}).encode(), *frames])


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
    "hello": [messages.read_hello, messages.read_welcome, messages.read_codecs],
    "infer": [
        lambda message: messages.unpacked(messages.read_infer(message, SPEC), message),
        lambda message: messages.read_actions(message, SPEC),
    ],
    "reset": [messages.empty],
    "health": [messages.empty],
    "error": [messages.read_failure],
}


def mutation(random: Random, data: bytes, marks: Sequence[bytes]) -> bytes:
    """The same edits of one frame without hypothesis."""
    edited = bytearray(data)
    for _ in range(random.randint(1, 5)):
        place = random.randint(0, len(edited))
        edit = random.randrange(4)
        if edit == 0:
            edited[place : place + 1] = random.randbytes(1)
        elif edit == 1:
            edited[place:place] = random.choice(marks)
        elif edit == 2:
            del edited[place : place + random.randint(1, 40)]
        else:
            edited[place:place] = edited[place : place + random.randint(1, 60)]
    return bytes(edited)


def outcome(frames: list[bytes]) -> object:
    """What decoding gives: the message's parts, or the kind of refusal."""
    try:
        message = decode(frames)
    except WireError as error:
        return error.type, error.seq
    arrays = {name: (array.dtype, array.shape, array.tobytes()) for name, array in message.arrays.items()}
    packed = {name: (each.shape, bytes(each.frame)) for name, each in message.packed.items()}
    plain = (message.kind, message.seq, message.session, message.deadline_ms, message.codec)
    return plain, message.timing, message.body, arrays, packed


def survive(frames: list[bytes]) -> None:
    """Decode and read as client and server do; the only way to fail is InputError."""
    with suppress(InputError):
        message = decode(frames)
        encode(message)
        for read in READERS[message.kind]:
            with suppress(InputError):
                read(message)


@settings(
    QUICK,
    max_examples=max(200, MUTATIONS // 100),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(mutated(), min_size=1, max_size=4))
def test_a_server_under_fire_serves_the_others(
    connect: Connect, digest_server: PolicyServer, plain: Raw, fired: list[list[bytes]]
) -> None:
    """The attacker never reads its answers; the robot beside it gets every one of its own."""
    attacker = connect(digest_server.endpoint)
    for frames in fired:
        attacker.socket.send_multipart([b"", *frames])
    attacker.socket.close(linger=1000)
    plain.socket.send_multipart([b"", *encode(infer(7))])
    assert plain.receive().kind == "infer"
