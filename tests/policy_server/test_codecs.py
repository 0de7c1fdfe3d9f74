"""Packed images: what arrives, what is refused, and who has to have Pillow."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from policy_server import codecs, messages
from policy_server.arrays import Packed
from policy_server.checks import WireError
from policy_server.client import RemotePolicy
from policy_server.codecs import Codec, unpack
from policy_server.scheduler import Batching
from policy_server.server import PolicyServer
from policy_server.wire import Message, decode, encode
from tests.policies import SPEC, Batched, Digest, observation
from tests.policy_server.sockets import Connect, Raw, error, infer
from vla.api import ActionChunk, Camera, InputError, Observation, PolicySpec
from vla.resampling import square

HEIGHT, WIDTH = 48, 64


def photo() -> np.ndarray:
    """Smooth in places, sharp in others, (48, 64, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1).clip(0, 255).astype(np.uint8)
    image[10:20, 10:20] = (255, 0, 0)
    return image


class Sees:
    """Remembers the images it was shown."""

    spec = PolicySpec((Camera("front", HEIGHT, WIDTH),), (), SPEC.actions, 1, 0.2, "sees")

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def infer(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation.images["front"].copy())
        return ActionChunk(np.zeros((1, 3), np.float32), 0.2)

    def reset(self, session: str) -> None:
        """Nothing to forget."""


@pytest.fixture
def sees() -> Sees:
    return Sees()


@pytest.fixture
def endpoint(sees: Sees) -> Iterator[str]:
    with PolicyServer(sees) as server:
        yield server.endpoint


@pytest.mark.parametrize("codec", [Codec(), Codec("png")])
def test_the_client_resizes_as_the_policy_would(codec: Codec) -> None:
    sees = Sees()
    sees.spec = replace(sees.spec, resize=("resize-crop", 24))
    with PolicyServer(sees) as server:
        for resize in (True, False):
            with RemotePolicy(server.endpoint, timeout=20.0, codec=codec, resize=resize) as remote:
                assert remote.spec == sees.spec
                remote.infer(Observation({"front": photo()}, "look"))
    np.testing.assert_array_equal(sees.seen[0], square(photo(), "resize-crop", 24))
    np.testing.assert_array_equal(sees.seen[1], photo())


def test_resizing_for_a_policy_that_does_not_say_how_is_refused(endpoint: str) -> None:
    with pytest.raises(InputError, match=f"the one at {endpoint} says nothing.*leave resize out"):
        RemotePolicy(endpoint, timeout=20.0, resize=True)


@pytest.mark.parametrize("codec", [Codec(), Codec("png")])
def test_raw_and_png_change_nothing(endpoint: str, sees: Sees, codec: Codec) -> None:
    with RemotePolicy(endpoint, timeout=20.0, codec=codec) as remote:
        remote.infer(Observation({"front": photo()}, "look"))
    np.testing.assert_array_equal(sees.seen[0], photo())


def test_jpeg_changes_little_and_says_how_long_it_took(endpoint: str, sees: Sees) -> None:
    with RemotePolicy(endpoint, timeout=20.0, codec=Codec("jpeg")) as remote:
        chunk = remote.infer(Observation({"front": photo()}, "look"))
        assert remote.codec.name == "jpeg"
    difference = np.abs(sees.seen[0].astype(int) - photo())
    assert 0 < difference.mean() < 2
    assert chunk.timing["image_decode"] > 0


def test_colours_are_red_green_blue_whatever_the_codec() -> None:
    red = np.full((16, 16, 3), (250, 10, 20), np.uint8)
    for name in ("png", "jpeg"):
        got = unpack("image/a", Codec(name).pack(red), name)
        assert np.abs(got.astype(int) - red).max() <= 4


def test_better_jpegs_are_larger_and_truer() -> None:
    sizes, errors = [], []
    for quality in (30, 60, 95):
        packed = Codec("jpeg", quality).pack(photo())
        sizes.append(len(packed.frame))
        errors.append(np.abs(unpack("a", packed, "jpeg").astype(int) - photo()).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def packed_request(seq: int, name: str = "png") -> Message:
    return messages.infer(seq, observation(), None, None, Codec(name))


def file_of(image: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


WRONG = {
    "not an image": b"what?",
    "nothing": b"",
    "another format": file_of(Image.new("RGB", (6, 4)), "jpeg"),
    "another size": file_of(Image.new("RGB", (5, 4)), "png"),
    "a bomb": file_of(Image.new("1", (30_000, 30_000)), "png"),
    "grey": file_of(Image.new("L", (6, 4)), "png"),
    "cut off": file_of(Image.effect_noise((6, 4), 50).convert("RGB"), "png")[:60],
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_are_not_the_promised_image_are_refused_and_the_next_is_answered(plain: Raw, name: str) -> None:
    good = packed_request(1)
    packed = {**good.packed, "image/front": Packed((4, 6, 3), WRONG[name])}
    reply = plain.ask(replace(good, packed=packed))
    assert reply.seq == 1
    assert error(reply)[0] == "malformed"
    assert plain.ask(packed_request(2)).kind == "infer"


def test_promises_are_checked_before_files_are_opened(plain: Raw) -> None:
    good = packed_request(1)
    small = {**good.packed, "image/front": Packed((2, 2, 3), b"?")}
    assert error(plain.ask(replace(good, packed=small)))[1].startswith("this policy needs camera 'front' of 4 x 6")
    large = {**good.packed, "image/front": Packed((4, 6, 3), bytes(72 + 64 * 1024 + 1))}
    assert "at most 65608 are allowed" in error(plain.ask(replace(good, packed=large)))[1]


def test_a_damaged_image_fails_alone_in_a_batch(connect: Connect) -> None:
    policy = Batched()
    policy.gate.release(100)
    with PolicyServer(policy, batching=Batching(max_batch=3, max_wait_ms=10_000.0)) as server:
        robots = [connect(server.endpoint) for _ in range(3)]
        damaged = packed_request(1)
        packed = {**damaged.packed, "image/wrist": Packed((2, 2, 3), b"?")}
        robots[0].send(replace(damaged, session="0", packed=packed))
        for number in (1, 2):
            robots[number].send(infer(1, session=str(number)))
        kinds = [robot.receive().kind for robot in robots]
    assert kinds == ["error", "infer", "infer"]
    assert [sorted(batch) for batch in policy.batches] == [["1", "2"]]  # whoever came first


def test_the_reply_says_which_codec_the_policy_saw(plain: Raw) -> None:
    for seq, name in enumerate(("png", "jpeg"), 1):
        assert plain.ask(packed_request(seq, name)).body["codec"] == name
    assert plain.ask(infer(3)).body["codec"] == "raw"


def test_without_pillow_raw_works_and_the_rest_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"codec jpeg needs Pillow: pip install 'cadence-vla\[codecs\]'"):
        Codec("jpeg")
    with PolicyServer(Digest()) as server, RemotePolicy(server.endpoint, timeout=20.0) as remote:
        assert remote.infer(observation()).actions.shape == (5, 3)
        monkeypatch.undo()
        codec = Codec("jpeg")
        monkeypatch.setattr(codecs, "find_spec", lambda _: None)
        with pytest.raises(InputError, match=r"reads images as \['raw'\], not jpeg"):
            RemotePolicy(server.endpoint, timeout=20.0, codec=codec)


@pytest.mark.parametrize("values", [{"name": "webp"}, {"quality": 0}, {"quality": True}, {"quality": 101}])
def test_codecs_are_checked(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values)).replace('name', 'codec')} must be"):
        Codec(**values)  # type: ignore[arg-type]


def test_what_a_policy_does_not_look_at_never_reaches_it() -> None:
    more = observation(images={**observation().images, "ceiling": np.zeros((9, 9, 3), np.uint8)})
    got = messages.read_infer(decode(encode(messages.infer(1, more, None, None))), SPEC)
    assert list(got.images) == ["front", "wrist"]


def test_a_damaged_file_s_error_is_short() -> None:
    with pytest.raises(WireError) as caught:
        unpack("image/" + "x" * 300, Packed((4, 6, 3), b"?" * 5000), "png")
    assert len(str(caught.value)) < 400
