"""What holds of every dialect that discovery finds, and how a set-up names things."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policy_server import naming
from policy_server.checks import WireError
from policy_server.dialect import build, kinds, load, setups
from policy_server.messages import failure
from policy_server.naming import Defaults, image
from policy_server.packing import ND, NDARRAY, NPY, pack, unpack
from policy_server.peers import NATIVE, Dialect, Dialects
from policy_server.server import PolicyServer
from policy_server.wire import encode
from tests.policies import SPEC, Digest
from tests.policy_server.foreign import GOLDEN
from tests.policy_server.sockets import Connect, infer
from vla.api import Camera, InputError, PolicySpec, Quantity

DEFAULTS = Defaults("see {}", "feel", "do", ("say", "tell"))
LOCAL = {"openpi": {"endpoint": "ws://127.0.0.1:0"}}
SHIPPED = PolicySpec(
    (Camera("3rd_view_camera", 224, 224),),
    tuple(Quantity(name, "1") for name in ("x", "y", "z", "roll", "pitch", "yaw", "gripper")),
    tuple(Quantity(name, "1") for name in ("dx", "dy", "dz", "rotation_x", "rotation_y", "rotation_z", "gripper")),
    horizon=16,
    period=0.2,
    model="tiny",
)


def test_the_dialects_are_those_of_the_folder() -> None:
    assert kinds() == ["gr00t", "openpi"]
    assert {name for kind in kinds() for name in setups() if name.startswith(kind)} == set(setups())


@pytest.mark.parametrize("setup", setups())
def test_every_shipped_set_up_fits_the_shipped_policy(setup: str) -> None:
    assert isinstance(load(setup, SHIPPED), Dialect)


@pytest.mark.parametrize("kind", kinds())
def test_a_dialect_fits_any_policy_without_a_word_in_its_set_up(kind: str) -> None:
    for spec in (SPEC, SHIPPED, PolicySpec((), (), SPEC.actions, 1, 1.0, "blind")):
        assert isinstance(build({"dialect": kind}, spec), Dialect)


@pytest.mark.parametrize("kind", kinds())
def test_the_wire_goes_on_beside_every_dialect(kind: str, connect: Connect) -> None:
    with PolicyServer(Digest(), dialects=[build({"dialect": kind, **LOCAL.get(kind, {})}, SPEC)]) as server:
        native = connect(server.endpoint)
        assert native.ask(infer(1)).kind == "infer"
        native.socket.send_multipart([b"", b"neither"])
        assert native.receive().kind == "error"


@pytest.mark.parametrize("kind", kinds())
def test_a_dialect_can_be_opened_again_and_closed_twice(kind: str) -> None:
    dialect = build({"dialect": kind, **LOCAL.get(kind, {})}, SPEC)
    for _ in range(2):
        dialect.open(lambda *_: None, lambda: None)
        dialect.close()
    dialect.close()


@pytest.mark.parametrize("kind", kinds())
def test_messages_of_the_wire_are_no_dialects(kind: str) -> None:
    dialect = build({"dialect": kind}, SPEC)
    for frames in ([bytes(frame) for frame in encode(infer(1))], [], [b""], [b"{}"], encode(failure("input", "no"))):
        assert dialect.recognise(b"client", frames) is None
        assert Dialects([dialect], lambda: None).exchange(b"client", frames) is NATIVE


def test_a_dialect_whose_library_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "policy_server.dialects.openpi", raising=False)
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    with pytest.raises(InputError, match=r"pip install 'cadence-vla\[server\]'"):
        build({"dialect": "openpi"}, SPEC)


def test_ones_own_file_is_a_set_up(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("dialect: gr00t\ncameras: {front: ego_view, wrist: hand}\n")
    assert isinstance(load(str(path), SPEC), Dialect)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- gr00t", "must map keys to values"),
        ("dialect: [", "cannot be read"),
        ("dialect: gr01t", "dialect must be one of ['gr00t', 'openpi'], got 'gr01t'"),
        ("dialect: gr00t\ncolour: red", "unknown key colour; allowed: dialect, cameras"),
        ("dialect: gr00t\ncameras: {front: ego_view}", "must name each of the policy's cameras ['front', 'wrist']"),
        ("dialect: gr00t\ncameras: [front]", "cameras must map the policy's cameras to names"),
        ("dialect: gr00t\nstate: {arm: [x]}", "state must name each of the policy's ['x', 'gripper'] once, got ['x']"),
        ("dialect: gr00t\nactions: {arm: dx}", "actions must map names to lists"),
        ("dialect: gr00t\ninstruction: []", "instruction must be a list of names"),
        ("dialect: gr00t\ndeadline_ms: 0", "deadline_ms must be null or a positive number"),
    ],
)
def test_a_set_up_that_nobody_can_follow_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load(str(path), SPEC)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_set_up_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match="there is none of this name; there are gr00t, gr00t_widowx, openpi"):
        load("gr00d", SPEC)


def test_actions_are_split_and_states_joined_by_name() -> None:
    names = naming.naming(
        SPEC, DEFAULTS, state={"g": ["gripper"], "p": ["x"]}, actions={"b": ["gripper", "dx"], "a": ["dy"]}
    )
    assert names.cameras == {"front": "see front", "wrist": "see wrist"}
    images = {"see front": np.zeros((4, 6, 3), np.uint8), "see wrist": np.zeros((1, 2, 2, 3), np.uint8)}
    found = names.arrays({**images, "g": 2, "p": np.float64(1.5), "more": None})
    assert found["state"].tolist() == [1.5, 2.0]
    assert found["image/wrist"].shape == (2, 2, 3)
    split = names.split(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert {name: part.tolist() for name, part in split.items()} == {"b": [[2, 0], [5, 3]], "a": [[1], [4]]}


@pytest.mark.parametrize("value", ["text", None, [1.0], np.zeros((2, 1)), np.zeros(2), np.zeros(0), {"a": 1}])
def test_a_number_is_one_number(value: Any) -> None:
    names = naming.naming(SPEC, DEFAULTS, cameras={"front": "a", "wrist": "a"}, state={"g": ["gripper"], "p": ["x"]})
    with pytest.raises(WireError, match=r"g must be 1 number\(s\) of one robot at one time"):
        names.arrays({"a": np.zeros((4, 6, 3), np.uint8), "g": value, "p": 1.0})


@pytest.mark.parametrize("value", [None, b"", np.zeros((4, 6)), np.zeros((2, 4, 6, 3))])
def test_an_image_is_one_image(value: Any) -> None:
    with pytest.raises(WireError, match="eye must be one image of one robot"):
        image("eye", value)


@pytest.mark.parametrize("encoding", [NPY, ND, NDARRAY])
@pytest.mark.parametrize("dtype", ["?", "u1", "<i4", ">i8", "<f2", "<f4", ">f8"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4)])
def test_arrays_come_back_as_they_went(encoding: str, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    got = unpack(pack({"a": array, "b": [1, "two", None]}, encoding))
    np.testing.assert_array_equal(got.value["a"], array)
    assert (got.value["a"].dtype, got.value["a"].shape) == (array.dtype, shape)
    assert got.value["b"] == [1, "two", None]
    assert got.encoding == encoding
    assert not got.value["a"].flags.writeable


def test_arrays_in_fortran_order_keep_their_values() -> None:
    array = np.asfortranarray(np.arange(6).reshape(2, 3))
    for encoding in (NPY, ND, NDARRAY):
        np.testing.assert_array_equal(unpack(pack(array, encoding)).value, array)


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


HOSTILE: dict[str, tuple[Any, str]] = {
    "an object array of msgpack-numpy": (GOLDEN["gr00t_n17.object_array.request"], "hold pickles"),
    "objects by another name": ({"nd": 1, "kind": "O", "type": "|O", "shape": [1], "data": b"x"}, "hold pickles"),
    "an object array in a file": (
        {"__ndarray_class__": True, "as_npy": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), } \n")},
        "hold pickles",
    ),
    "records": ({b"nd": True, b"type": [["a", "<f4"]], b"kind": b"V", b"shape": [1], b"data": b"1234"}, "list of 1"),
    "text as an array": ({b"__ndarray__": True, b"dtype": "<U4", b"shape": [1], b"data": bytes(16)}, "dtype '<U4'"),
    "complex numbers": ({b"__ndarray__": True, b"dtype": "<c8", b"shape": [1], b"data": bytes(8)}, "dtype '<c8'"),
    "times": ({b"__ndarray__": True, b"dtype": "<M8[s]", b"shape": [1], b"data": bytes(8)}, "dtype"),
    "too few bytes": (
        {b"__ndarray__": True, b"dtype": "<f4", b"shape": [2], b"data": bytes(4)},
        "needs 8 bytes, got 4",
    ),
    "a negative size": ({b"__ndarray__": True, b"dtype": "<f4", b"shape": [-1], b"data": b""}, "a shape is a list"),
    "a size beyond memory": (
        {b"__ndarray__": True, b"dtype": "|u1", b"shape": [2**62, 2**62], b"data": b""},
        "needs",
    ),
    "an impossible empty one": (
        {b"__ndarray__": True, b"dtype": "<f4", b"shape": [0, 2**63 - 1], b"data": b""},
        "shape",
    ),
    "nine dimensions": ({b"__ndarray__": True, b"dtype": "<f4", b"shape": [1] * 9, b"data": bytes(4)}, "at most 8"),
    "text as data": ({b"__ndarray__": True, b"dtype": "|u1", b"shape": [1], b"data": "x"}, "data must be bytes"),
    "no data": ({b"__ndarray__": True}, "dtype None"),
    "a file that is none": ({"__ndarray_class__": True, "as_npy": b"PK\x03\x04"}, "no .npy file"),
    "a file that is text": ({"__ndarray_class__": True, "as_npy": "text"}, "bytes of an .npy file, got str"),
    "a header that is a program": (
        {
            "__ndarray_class__": True,
            "as_npy": npy("{'descr': __import__('os'), 'fortran_order': False, 'shape': ()}\n"),
        },
        "has the header",
    ),
    "a header beyond its file": (
        {"__ndarray_class__": True, "as_npy": b"\x93NUMPY\x01\x00\xff\xff{"},
        "has the header",
    ),
    "too many arrays": (
        [{b"__ndarray__": True, b"dtype": "|u1", b"shape": [0], b"data": b""}] * 65,
        "more than 64 arrays",
    ),
    "too many values": ([[0] * 1000] * 11, "more than 10000 values"),
    "a long list": ([0] * 2000, "no msgpack that can be read"),
    "a long name": ({"n" * 300: 1}, "names have at most 256"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_number_is_refused(name: str) -> None:
    value, complaint = HOSTILE[name]
    with pytest.raises(WireError) as caught:
        unpack(value if isinstance(value, bytes) else pack(value, NPY))
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 1000
