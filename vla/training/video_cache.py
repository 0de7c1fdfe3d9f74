"""Videos decoded once into one memory-mapped array, because training reads frames in random order."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from vla.api import InputError
from vla.training.lerobot_files import Directory, Episodes, VideoPart

THREADS = 2
_SHRUNK_TOGETHER = 256  # images


def open_images(files: Directory, feature: str, episodes: Episodes, cache: Path) -> NDArray[np.uint8]:
    """Images of all frames of a camera, decoded if this exact content was not decoded before.

    Args:
        files: the dataset.
        feature: name of the video.
        episodes: where its frames are.
        cache: directory for the decoded array; its name has a hash of the videos, so it can never be out of date.

    Returns:
        (frames, height, width, 3) uint8 RGB, memory-mapped, read-only.

    Raises:
        InputError: if a video is missing, damaged, too short, of another size or frame rate, or the cache is not
            writable.
    """
    height, width, _ = files.features[feature]["shape"]
    shape = (int(episodes.lengths.sum()), height, width, 3)
    path = cache / f"{feature}-{_content(feature, episodes)}.npy"
    if not path.exists():
        _decode_all(files, feature, episodes, shape, path)
    return np.load(path, mmap_mode="r")


def open_shrunken(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The same images averaged over squares of pixels, kept beside a memory-mapped original so that it is done once.

    Args:
        images: (frames, height, width, 3) as `open_images` gave them, or any other array, which is shrunk in memory.
        size: [pixels] of the side wanted; divides the height.

    Returns:
        (frames, size, size, 3) uint8, values rounded down, memory-mapped where the original is, so that processes
        that train together share it; the very same array if it has that size.
    """
    if images.shape[1] == size:
        return images
    shape = (len(images), size, size, 3)
    if not isinstance(images, np.memmap) or not images.filename:
        return _shrink(images, size, np.empty(shape, np.uint8))
    original = Path(images.filename)
    path = original.with_name(f"{original.stem}-{size}px.npy")
    if not path.exists():
        write_array(path, shape, np.uint8, lambda array: _shrink(images, size, array))
    return np.load(path, mmap_mode="r")


def write_array(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], fill: Callable[[np.memmap], object]
) -> None:
    """Let `fill` fill a memory-mapped array that gets its name when it is complete.

    Raises:
        InputError: if there is no room, or no right to write.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = _allocate(partial, shape, dtype)
        fill(array)
        array.flush()
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot keep what was made of a dataset in {path.parent}: {error}; make room, or give another cache_dir"
        ) from error
    finally:
        with suppress(OSError):  # nothing was written, or it has its final name
            partial.unlink()


def _shrink(images: NDArray[np.uint8], size: int, into: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = images.shape[1] // size
    for first in range(0, len(images), _SHRUNK_TOGETHER):
        part = images[first : first + _SHRUNK_TOGETHER]
        total = sum(part[:, i::side, j::side].astype(np.uint16) for i in range(side) for j in range(side))
        into[first : first + _SHRUNK_TOGETHER] = total // side**2
    return into


def _content(feature: str, episodes: Episodes) -> str:
    """Hash of which frames of which video contents are used."""
    digest = hashlib.sha256(feature.encode())
    for path, parts in _by_file(episodes.videos[feature]).items():
        if not path.is_file():
            raise InputError(f"{path} is missing")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(repr([(part.start, part.length) for _, part in parts]).encode())
    return digest.hexdigest()[:16]


def _by_file(parts: Sequence[VideoPart]) -> dict[Path, list[tuple[int, VideoPart]]]:
    """File -> (first row in the array, part) of the episodes it holds."""
    found: dict[Path, list[tuple[int, VideoPart]]] = {}
    row = 0
    for part in parts:
        found.setdefault(part.path, []).append((row, part))
        row += part.length
    return found


def _decode_all(
    files: Directory, feature: str, episodes: Episodes, shape: tuple[int, int, int, int], path: Path
) -> None:
    def decode(array: np.memmap) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [
                pool.submit(_decode, video, parts, files.fps, array)
                for video, parts in _by_file(episodes.videos[feature]).items()
            ]
            for job in jobs:
                job.result()

    write_array(path, shape, np.uint8, decode)


def _allocate(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.memmap:
    """A memory-mapped array whose disk space is reserved: a full disk is an OSError here, not a bus error later."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _decode(path: Path, parts: Sequence[tuple[int, VideoPart]], fps: float, array: NDArray[np.uint8]) -> None:
    """Write the used frames of one file into the array."""
    rows = {part.start + step: row + step for row, part in parts for step in range(part.length)}
    last, decoded = max(rows), -1
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.average_rate != fps:
                raise InputError(f"{path} has {stream.average_rate} frames/s, meta/info.json says fps {fps}")
            if (stream.height, stream.width) != array.shape[1:3]:
                sizes = f"{stream.height} x {stream.width}, meta/info.json says {array.shape[1]} x {array.shape[2]}"
                raise InputError(f"{path} is {sizes}")
            for decoded, frame in enumerate(container.decode(stream)):
                if decoded in rows:
                    array[rows[decoded]] = _pixels(frame)
                if decoded == last:
                    return
    except (av.error.FFmpegError, IndexError) as error:
        raise InputError(f"{path} is damaged after {decoded + 1} frames: {error}") from error
    raise InputError(f"{path} has {decoded + 1} frames; meta/episodes needs {last + 1}")


def _pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(height, width, 3) RGB; planar RGB needs no conversion and is read twice as fast."""
    return np.asarray(frame.to_ndarray(format="gbrp" if frame.format.name == "gbrp" else "rgb24"), np.uint8)
