"""Arrays inside msgpack, as other clients write them: three encodings, all read, each written (needs msgpack).

    npy      {"__ndarray_class__": True, "as_npy": an .npy file}                      GR00T N1.5, N1.6, early N1.7
    nd       {b"nd": True, b"type": dtype, b"kind": b"", b"shape", b"data"}           msgpack-numpy 0.4, GR00T N1.7
    ndarray  {b"__ndarray__": True, b"data", b"dtype", b"shape"}                      openpi

The last two have keys of msgpack's type bin, which some languages write as text; both are read. Only plain numbers are
arrays: what else these encodings allow (Python objects, records, text) is refused before a byte of it is looked at.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from policy_server.arrays import MAX_ARRAYS, MAX_DIMENSIONS, Frame
from policy_server.checks import MAX_NAME, WireError, brief, is_integer, require, show

NPY, ND, NDARRAY = "npy", "nd", "ndarray"
MAX_VALUES = 10_000  # entries of all lists and maps of a message
MAX_LIST, MAX_MAP, MAX_TEXT = 1024, 256, 64 * 1024
NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
# numpy's own reader evaluates this header as Python; the form is fixed, see numpy.lib.format.
NPY_HEADER = re.compile(
    rb"\{'descr': '([^']{2,20})', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,200})\), \} *\n"
)
NPY_LENGTH = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}  # bytes that say how long the header is
OBJECTS = "arrays of Python objects are refused: they hold pickles, which run code when they are read"


@dataclass(frozen=True)
class Unpacked:
    """What a message holds.

    Attributes:
        value: of lists, maps, text, numbers and read-only arrays.
        encoding: of its first array; None if it has none.
    """

    value: Any
    encoding: str | None


def unpack(frame: Frame) -> Unpacked:
    """Read one message.

    Raises:
        WireError: if it is not msgpack, or is larger or deeper than any observation; never another exception.
    """
    reader = _Reader()
    try:
        value = msgpack.unpackb(
            frame,
            object_hook=reader.map,
            list_hook=reader.list,
            max_array_len=MAX_LIST,
            max_map_len=MAX_MAP,
            max_str_len=MAX_TEXT,
            max_ext_len=64,
        )
    except WireError:
        raise
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"the message is no msgpack that can be read: {show(str(error))}") from None
    return Unpacked(value, reader.encoding)


def pack(value: Any, encoding: str) -> bytes:
    """Write one message, its arrays in this encoding."""
    packed = msgpack.packb(value, default=_WRITERS[encoding])
    assert packed is not None
    return packed


class _Reader:
    """Turns the maps that mean arrays into arrays, and counts what a message makes this process hold."""

    def __init__(self) -> None:
        self.encoding: str | None = None
        self._values = self._arrays = 0

    def list(self, values: list[Any]) -> list[Any]:
        self._count(len(values))
        return values

    def map(self, values: dict[Any, Any]) -> Any:
        self._count(len(values))
        require(max(map(len, values), default=0) <= MAX_NAME, f"a map's names have at most {MAX_NAME} characters")
        named = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in values.items()}
        for encoding, marker, read in _READERS:
            if marker in named:
                return self._array(encoding, read(named))
        return named["data"] if "__npgeneric__" in named and "data" in named else values

    def _array(self, encoding: str, array: Any) -> Any:
        self.encoding = self.encoding or encoding
        self._arrays += 1
        require(self._arrays <= MAX_ARRAYS, f"more than {MAX_ARRAYS} arrays came")
        return array

    def _count(self, values: int) -> None:
        self._values += values
        require(self._values <= MAX_VALUES, f"the message holds more than {MAX_VALUES} values")


def _read_npy(named: Mapping[str, Any]) -> NDArray[Any]:
    data = named.get("as_npy")
    require(isinstance(data, bytes), f"as_npy must hold the bytes of an .npy file, got {type(data).__name__}")
    assert isinstance(data, bytes)
    width = NPY_LENGTH.get(data[:8])
    if width is None:
        raise WireError(f"as_npy holds no .npy file of version 1 or 2, it begins with {show(data[:8])}")
    begin = 8 + width
    end = begin + int.from_bytes(data[8:begin], "little")
    header = NPY_HEADER.fullmatch(data, begin, min(end, len(data), begin + 1000))
    if header is None:
        raise WireError(f"as_npy has the header {show(data[begin : min(end, begin + 100)])}; {_expected()}")
    dtype, fortran, sizes = (part.decode("latin-1") for part in header.groups())
    shape = [int(size) for size in re.findall(r"\d+", sizes)]
    return _array(dtype, shape, memoryview(data)[end:], "F" if fortran == "True" else "C")


def _read_nd(named: Mapping[str, Any]) -> Any:
    if named.get("kind") in (b"O", "O"):
        raise WireError(OBJECTS)
    if named["nd"] is True:
        return _array(named.get("type"), named.get("shape"), named.get("data"))
    return _array(named.get("type"), [], named.get("data"))[()]


def _read_ndarray(named: Mapping[str, Any]) -> NDArray[Any]:
    return _array(named.get("dtype"), named.get("shape"), named.get("data"))


def _array(dtype: object, shape: object, data: object, order: Any = "C") -> NDArray[Any]:
    """A read-only view of the data, after everything that describes it was checked."""
    require(not (isinstance(dtype, str) and "O" in dtype), OBJECTS)
    if not isinstance(dtype, str) or NUMBERS.fullmatch(dtype) is None:
        raise WireError(f"an array has dtype {brief(dtype)}; {_expected()}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(is_integer, shape)):
        raise WireError(f"a shape is a list of at most {MAX_DIMENSIONS} sizes, got {brief(shape)}")
    if not isinstance(data, bytes | memoryview):
        raise WireError(f"an array's data must be bytes, got {type(data).__name__}")
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    require(len(data) == needed, f"an array {dtype} {show(shape)} needs {needed} bytes, got {len(data)}")
    try:
        array = np.ndarray(shape, dtype, buffer=data, order=order)
    except ValueError as error:  # a size 0 beside one beyond what numpy can index
        raise WireError(f"an array has the impossible shape {show(shape)}: {error}") from None
    array.flags.writeable = False
    return array


def _expected() -> str:
    return "arrays are of bool, integers or floats of at most 8 bytes"


def _write_npy(value: Any) -> Any:
    file = BytesIO()
    np.save(file, value, allow_pickle=False)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def _write_nd(value: NDArray[Any]) -> Any:
    return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": value.tobytes()}


def _write_ndarray(value: NDArray[Any]) -> Any:
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


_READERS = (
    (NPY, "__ndarray_class__", _read_npy),
    (ND, "nd", _read_nd),
    (NDARRAY, "__ndarray__", _read_ndarray),
)
_WRITERS = {NPY: _write_npy, ND: _write_nd, NDARRAY: _write_ndarray}
