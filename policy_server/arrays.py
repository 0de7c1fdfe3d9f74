"""Arrays on the wire: one frame each, raw or, for images, as a file of the message's codec (numpy only)."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from policy_server.checks import NAME, WireError, are_sizes, is_name, require, show

RAW = "raw"
CODECS = (RAW, "png", "jpeg")
IMAGE = "image/"
DTYPES = {"bool": "|b1", "uint8": "|u1", "int32": "<i4", "int64": "<i8", "float32": "<f4", "float64": "<f8"}
NATIVE = {name: np.dtype(code) for name, code in DTYPES.items()}
NAMES = {dtype: name for name, dtype in NATIVE.items()}
ITEM_BYTES = {name: dtype.itemsize for name, dtype in NATIVE.items()}
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_ARRAYS = 64
MAX_DIMENSIONS = 8
MAX_PACKED_SURPLUS = 64 * 1024

Frame: TypeAlias = bytes | memoryview


@dataclass(frozen=True, eq=False)
class Packed:
    """An image as a file of the message's codec, not looked into.

    Attributes:
        shape: (height, width, 3) that was promised.
        frame: the file.
    """

    shape: tuple[int, ...]
    frame: Frame


def check_descriptions(described: object) -> list[int]:
    """Arrays are described as [name, dtype, shape] within the limits; sizes are judged before memory is touched.

    Returns:
        the bytes of each array.

    Raises:
        WireError: if they are not.
    """
    if not isinstance(described, list):
        raise WireError(f"arrays must be a list, got {show(described)}")
    if len(described) > MAX_ARRAYS:
        raise WireError(f"{len(described)} arrays came, at most {MAX_ARRAYS} are allowed")
    sizes = [_described_bytes(item) for item in described]
    if sum(sizes) > MAX_MESSAGE_BYTES:
        raise WireError(f"the arrays have {sum(sizes)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    if len({item[0] for item in described}) < len(described):
        raise WireError(f"array names must be unique, got {show([item[0] for item in described])}")
    return sizes


def _described_bytes(item: object) -> int:
    """The size of one described array."""
    if not isinstance(item, list) or len(item) != 3:
        raise WireError(f"an array is [name, dtype, shape], got {show(item)}")
    name, dtype, shape = item
    if not is_name(name):
        raise WireError(f"an array's name must be {NAME}, got {show(name)}")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise WireError(f"dtype must be one of {list(DTYPES)}, got {show(dtype)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not are_sizes(shape):
        raise WireError(f"a shape is a list of at most {MAX_DIMENSIONS} sizes, got {show(shape)}")
    return math.prod(shape) * ITEM_BYTES[dtype]


def decode_arrays(
    described: object, frames: Sequence[Frame], codec: object, sizes: list[int] | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Packed]]:
    """The arrays in these frames, as read-only views, and the images that the codec packed.

    Args:
        described: [name, dtype, shape] of each.
        frames: one for each.
        codec: of the images.
        sizes: what `check_descriptions` returned; None if it was not asked.

    Raises:
        WireError: if the descriptions are not allowed or the frames are not as described.
    """
    sizes = check_descriptions(described) if sizes is None else sizes
    assert isinstance(described, list)
    if len(described) != len(frames):
        raise WireError(f"{len(described)} arrays are described, {len(frames)} frames came")
    arrays: dict[str, NDArray[Any]] = {}
    packed: dict[str, Packed] = {}
    for (name, dtype, shape), size, frame in zip(described, sizes, frames, strict=True):
        if codec != RAW and name.startswith(IMAGE):
            packed[name] = _packed(name, dtype, shape, frame)
        elif len(frame) != size:
            raise WireError(f"array {show(name)} {dtype} {shape} needs {size} bytes, got {len(frame)}")
        else:
            arrays[name] = _decode_array(name, dtype, shape, frame)
    return arrays, packed


def _packed(name: str, dtype: str, shape: list[int], frame: Frame) -> Packed:
    colour = dtype == "uint8" and len(shape) == 3 and shape[2] == 3 and min(shape) > 0
    require(colour, lambda: f"a packed image is uint8 (height, width, 3), got {show(name)} {dtype} {show(shape)}")
    most = math.prod(shape) + MAX_PACKED_SURPLUS
    require(len(frame) <= most, lambda: f"the file of {show(name)} has {len(frame)} bytes, at most {most} are allowed")
    return Packed(tuple(shape), frame)


def _decode_array(name: str, dtype: str, shape: list[int], frame: Frame) -> NDArray[Any]:
    try:
        array = np.ndarray(shape, NATIVE[dtype], buffer=frame)
    except ValueError as error:  # a size 0 beside one beyond what numpy can index
        raise WireError(f"array {show(name)} has an impossible shape {show(shape)}: {error}") from None
    if dtype == "bool" and array.size and array.view(np.uint8).max() > 1:
        raise WireError(f"array {show(name)} is bool and holds bytes other than 0 and 1")
    array.flags.writeable = False
    return array


def dtype_name(array: NDArray[Any]) -> str:
    """What numpy calls the array's dtype, whatever its byte order; found faster if it is on the list."""
    return NAMES.get(array.dtype) or array.dtype.name


def array_bytes(array: NDArray[Any]) -> Frame:
    """The bytes of an array, C order, little endian; shares memory where it can."""
    if array.dtype not in NAMES or not array.flags.c_contiguous:
        array = np.ascontiguousarray(array, dtype=NATIVE[dtype_name(array)])
    return array.data.cast("B") if array.size else b""


@lru_cache(maxsize=64)
def descriptions(layout: tuple[tuple[str, str, tuple[int, ...]], ...]) -> str:
    """The header's `arrays` as JSON, for (name, dtype, shape) of each; from one message to the next they are the same.

    Raises:
        WireError: if the specification does not allow them.
    """
    described = [[name, dtype, list(shape)] for name, dtype, shape in layout]
    check_descriptions(described)
    return json.dumps(described, separators=(",", ":"))
