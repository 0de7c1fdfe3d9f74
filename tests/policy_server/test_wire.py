"""The wire format: golden bytes, round trips, and a decoder that refuses everything else without crashing."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from policy_server import arrays, checks, messages, wire
from policy_server.arrays import Frame, Packed
from policy_server.checks import WireError
from policy_server.messages import Embodiment
from policy_server.wire import Message, decode, encode
from tests.policies import SPEC, observation
from vla.api import ActionChunk, Camera, Observation, Quantity

QUICK = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
EMBODIMENT = Embodiment(SPEC.cameras, SPEC.state, SPEC.actions, SPEC.period)

SMALL = Observation(
    images={"front": np.arange(6, dtype=np.uint8).reshape(1, 2, 3)},
    instruction="lift the café's cup",
    state=np.array([0.5, -1.0], np.float32),
    session="robot-1",
    step=3,
    time=12.25,
)
REQUEST = messages.infer(7, SMALL, 250.0, "0123456789abcdef")
CHUNK = ActionChunk(np.array([[1.0, -2.5]], np.float32), 0.2, {"total": 30.5})

SPEC_JSON = (
    '{"cameras":[["front",4,6],["wrist",2,2]],"state":[["x","m"],["gripper","1"]],'
    '"actions":[["dx","m"],["dy","m"],["gripper","1"]],"period":0.2'
)
# Changing any of these bytes needs a new wire.VERSION.
GOLDEN: dict[str, tuple[Message, list[bytes]]] = {
    "hello": (
        messages.hello(1, EMBODIMENT),
        [
            b'{"version":2,"kind":"hello","session":"","seq":1,"deadline_ms":null,"codec":"raw","timing":{},'
            b'"body":{"embodiment":' + SPEC_JSON.encode() + b'}},"arrays":[]}'
        ],
    ),
    "hello reply": (
        messages.welcome(1, SPEC),
        [
            b'{"version":2,"kind":"hello","session":"","seq":1,"deadline_ms":null,"codec":"raw","timing":{},'
            b'"body":{"spec":' + SPEC_JSON.encode() + b',"horizon":5,"model":"digest","recipe":"none",'
            b'"checkpoint":"c0ffee","inpaints":false,"resize":null},"spec_id":"9790656691b042c6","codecs":["raw"]},"arrays":[]}'
        ],
    ),
    "infer": (
        REQUEST,
        [
            b'{"version":2,"kind":"infer","session":"robot-1","seq":7,"deadline_ms":250.0,"codec":"raw","timing":{},'
            b'"body":{"instruction":"lift the caf\\u00e9\'s cup","step":3,"time":12.25,"frozen":0,'
            b'"spec_id":"0123456789abcdef"},"arrays":[["image/front","uint8",[1,2,3]],["state","float32",[2]]]}',
            bytes.fromhex("000102030405"),
            bytes.fromhex("0000003f 000080bf"),
        ],
    ),
    "infer with a packed image": (
        Message("infer", 7, codec="png", packed={"image/front": Packed((1, 2, 3), b"a file")}),
        [
            b'{"version":2,"kind":"infer","session":"","seq":7,"deadline_ms":null,"codec":"png","timing":{},'
            b'"body":{},"arrays":[["image/front","uint8",[1,2,3]]]}',
            b"a file",
        ],
    ),
    "infer reply": (
        messages.actions(REQUEST, CHUNK, {"queue": 0.25}),
        [
            b'{"version":2,"kind":"infer","session":"robot-1","seq":7,"deadline_ms":null,"codec":"raw",'
            b'"timing":{"total":30.5,"queue":0.25},"body":{"period":0.2,"codec":"raw"},'
            b'"arrays":[["actions","float32",[1,2]]]}',
            bytes.fromhex("0000803f 000020c0"),
        ],
    ),
    "reset": (
        Message("reset", 8, "robot-1"),
        [
            b'{"version":2,"kind":"reset","session":"robot-1","seq":8,"deadline_ms":null,"codec":"raw","timing":{},'
            b'"body":{},"arrays":[]}'
        ],
    ),
    "health": (
        Message("health", 9),
        [
            b'{"version":2,"kind":"health","session":"","seq":9,"deadline_ms":null,"codec":"raw","timing":{},'
            b'"body":{},"arrays":[]}'
        ],
    ),
    "error": (
        messages.failure("expired", "too late", "ask sooner", 7, "robot-1"),
        [
            b'{"version":2,"kind":"error","session":"robot-1","seq":7,"deadline_ms":null,"codec":"raw","timing":{},'
            b'"body":{"type":"expired","message":"too late","hint":"ask sooner"},"arrays":[]}'
        ],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str) -> None:
    message, frames = GOLDEN[name]
    assert [bytes(frame) for frame in encode(message)] == frames
    assert_same(decode(frames), message)


def assert_same(left: Message, right: Message) -> None:
    bare = {"arrays": {}, "packed": {}}
    assert replace(left, **bare).__dict__ == replace(right, **bare).__dict__
    assert {name: vars(packed) for name, packed in left.packed.items()} == {
        name: vars(packed) for name, packed in right.packed.items()
    }
    assert list(left.arrays) == list(right.arrays)
    for name, array in left.arrays.items():
        assert array.dtype == right.arrays[name].dtype.newbyteorder("<")
        assert array.shape == right.arrays[name].shape
        assert array.tobytes() == right.arrays[name].astype(array.dtype).tobytes()


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60)
BODIES = st.recursive(
    st.none() | st.booleans() | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
ARRAYS = st.dictionaries(
    NAMES,
    st.sampled_from([*sorted(arrays.DTYPES.values()), ">f4", ">i8"]).flatmap(
        lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    max_size=4,
)
MESSAGES = st.builds(
    Message,
    kind=st.sampled_from(wire.KINDS),
    seq=st.integers(1, checks.MAX_INTEGER),
    session=NAMES,
    deadline_ms=st.none() | st.floats(1e-3, 1e9),
    timing=st.dictionaries(NAMES, NUMBERS, max_size=3),
    body=st.dictionaries(NAMES, BODIES, max_size=4),
    arrays=ARRAYS,
)


@QUICK
@given(MESSAGES)
def test_decode_undoes_encode(message: Message) -> None:
    assert_same(decode(encode(message)), message)


def test_headers_are_the_same_without_the_c_part_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = json.loads(bytes(encode(REQUEST)[0]))
    monkeypatch.setattr("json.encoder.c_make_encoder", None)
    assert wire._json_writer()(plain) == wire._write_json(plain)


def test_views_and_fortran_order_arrive_as_they_look() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for array in (image[::2, ::-1], np.asfortranarray(image), image.transpose(1, 0, 2)):
        got = decode([bytes(frame) for frame in encode(Message("infer", 1, arrays={"a": array}))]).arrays["a"]
        assert np.array_equal(got, array)
        assert not got.flags.writeable


def header(**changes: Any) -> dict[str, Any]:
    plain = json.loads(bytes(encode(REQUEST)[0]))
    return {**plain, **changes}


def frames_of(**changes: Any) -> list[Frame]:
    return [json.dumps(header(**changes)).encode(), *encode(REQUEST)[1:]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "kill"}, "kind must be one of"),
        ({"kind": ["infer"]}, "kind must be one of"),
        ({"session": 5}, "session must be text"),
        ({"session": "x" * 257}, "session must be text"),
        ({"session": "\ud800"}, "session must be text"),
        ({"session": "\x1b]0;title\x07"}, "session must be text"),
        ({"session": "\x9b2J"}, "session must be text"),
        ({"session": "\x7f"}, "session must be text"),
        ({"seq": -1}, "seq must be an integer"),
        ({"seq": 0}, "seq must be an integer from 1 "),
        ({"seq": True}, "seq must be an integer"),
        ({"seq": 1.0}, "seq must be an integer"),
        ({"deadline_ms": 0}, "deadline_ms must be null or positive"),
        ({"deadline_ms": "soon"}, "deadline_ms must be null or positive"),
        ({"deadline_ms": float("inf")}, "not UTF-8 JSON.*not a finite number"),
        ({"deadline_ms": 10**400}, "deadline_ms must be null or positive"),
        ({"codec": "webp"}, "codec must be one of"),
        ({"codec": ["png"]}, "codec must be one of"),
        ({"codec": "png", "arrays": [["image/a", "uint8", [6]], ["b", "uint8", [8]]]}, "a packed image is uint8"),
        ({"codec": "png", "arrays": [["image/a", "int32", [1, 2, 3]], ["b", "uint8", [8]]]}, "a packed image is uint8"),
        ({"codec": "png", "arrays": [["image/a", "uint8", [0, 2, 3]], ["b", "uint8", [8]]]}, "a packed image is uint8"),
        ({"timing": {"total": None}}, "timing must map"),
        ({"timing": []}, "timing must map"),
        ({"body": []}, "body must be an object"),
        ({"extra": 1}, "exactly the keys"),
        ({"arrays": {}}, "arrays must be a list"),
        ({"arrays": [["a", "uint8"]]}, r"an array is \[name, dtype, shape\]"),
        ({"arrays": [["a", "object", [6]]]}, "dtype must be one of"),
        ({"arrays": [["a", "O", [6]]]}, "dtype must be one of"),
        ({"arrays": [["a", ["uint8"], [6]]]}, "dtype must be one of"),
        ({"arrays": [["a", "uint8", [-6]]]}, "a shape is a list"),
        ({"arrays": [["a", "uint8", [True] * 2]]}, "a shape is a list"),
        ({"arrays": [["a", "uint8", [1] * 9]]}, "a shape is a list"),
        ({"arrays": [["a", "uint8", [2**40, 2**40]]]}, "at most 67108864 are allowed"),
        ({"arrays": [["a", "uint8", [0, 2**62, 2**62]], ["b", "uint8", [8]]]}, "needs 0 bytes, got 6"),
        ({"arrays": [["a", "uint8", [6]], ["a", "uint8", [8]]]}, "names must be unique"),
        ({"arrays": [["a", "uint8", [6]]]}, "1 arrays are described, 2 frames came"),
        ({"arrays": [["a", "uint8", [5]], ["b", "uint8", [8]]]}, "needs 5 bytes, got 6"),
        ({"arrays": [["a", "bool", [6]], ["b", "uint8", [8]]]}, "bytes other than 0 and 1"),
        ({"arrays": [[f"a{i}", "uint8", [1]] for i in range(65)]}, "65 arrays came, at most 64"),
    ],
)
def test_what_the_specification_does_not_allow_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(WireError, match=said) as caught:
        decode(frames_of(**changes))
    assert caught.value.type == "malformed"
    assert len(str(caught.value)) < 600


def test_refusals_name_the_request_they_refuse() -> None:
    with pytest.raises(WireError) as caught:
        decode(frames_of(kind="kill"))
    assert caught.value.seq == 7


def test_another_version_is_refused_before_anything_else_is_read_and_both_are_named() -> None:
    with pytest.raises(WireError, match="sender speaks wire version 1, the receiver speaks version 2") as caught:
        decode([json.dumps({"version": 1, "kind": "new", "seq": 4}).encode(), b"?"])
    assert (caught.value.type, caught.value.seq) == ("version", 4)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\x80\x04K*."],
        [b"\xff"],
        [b"[1]"],
        [b"[" * 60_000],
        [b'{"version":NaN}'],
        [b'{"version":1e999}'],
        [b'{"version":' + b"1" * 10_000 + b"}"],
        [b" " * (wire.MAX_HEADER_BYTES + 1)],
    ],
)
def test_what_is_not_a_header_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames)


def test_observation_and_chunk_survive_bit_for_bit() -> None:
    sent = observation(seed=1, session="s", step=4, time=0.1)
    got = messages.read_infer(decode(encode(messages.infer(1, sent, None, messages.spec_id(SPEC)))), SPEC)
    assert got.state is not None
    assert sent.state is not None
    assert got.state.tobytes() == sent.state.tobytes()
    assert all(np.array_equal(got.images[name], image) for name, image in sent.images.items())
    assert (got.instruction, got.session, got.step, got.time) == (sent.instruction, "s", 4, 0.1)

    bits = np.random.default_rng(0).integers(0, 2**32, 15, dtype=np.uint32).view(np.float32).reshape(5, 3)
    actions = np.where(np.isfinite(bits), bits, np.float32(-0.0))
    request = Message("infer", 1)
    reply = messages.actions(request, ActionChunk(actions, 0.1 + 0.2), {})
    chunk = messages.read_actions(decode(encode(reply)), SPEC)
    assert chunk.actions.tobytes() == actions.tobytes()
    assert chunk.period == 0.1 + 0.2
    assert chunk.actions.flags.writeable


def test_hello_carries_spec_and_embodiment() -> None:
    assert messages.read_welcome(decode(encode(messages.welcome(1, SPEC)))) == (SPEC, messages.spec_id(SPEC))
    assert messages.read_hello(decode(encode(messages.hello(1, EMBODIMENT)))) == EMBODIMENT
    assert messages.read_hello(decode(encode(messages.hello(1, None)))) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cameras": (Camera("front", 4, 6),)}, r"needs camera 'wrist' 2 x 2, the client sends .*front.* 4 x 6"),
        ({"cameras": (*SPEC.cameras[1:], Camera("front", 8, 6))}, "needs camera 'front' 4 x 6, .*front.* 8 x 6"),
        ({"state": ()}, r"needs the state \[x \[m\], gripper \[1\]\], the client sends \[\]"),
        ({"actions": (Quantity("dx", "mm"), *SPEC.actions[1:])}, r"gives actions \[dx \[m\].*expects \[dx \[mm\]"),
        ({"period": 0.02}, r"acts every 0.2 s, the client every 0.02 s"),
    ],
)
def test_embodiments_that_do_not_fit_are_described_with_both_sides(changes: dict[str, Any], said: str) -> None:
    assert EMBODIMENT.differences(SPEC) == []
    (difference,) = replace(EMBODIMENT, **changes).differences(SPEC)
    assert re.search(said, difference)


@pytest.mark.parametrize("dtype", [np.complex64, object, "U3", np.float16, "datetime64[s]"])
def test_encode_refuses_dtypes_outside_the_closed_list(dtype: Any) -> None:
    with pytest.raises(WireError, match="dtype must be one of"):
        encode(Message("infer", 1, arrays={"a": np.zeros(2, dtype)}))
