"""Reading and writing the files of a checkpoint, with errors that name the file."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vla.api import InputError

_CHUNK = 2**20  # [bytes]


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Indented, with a newline at the end."""
    path.write_text(json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        InputError: if the file is missing or holds something else.
    """
    try:
        values = json.loads(b"".join(chunks(path)))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold one JSON object, it holds a {type(values).__name__}")
    return values


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, memory-mapped: they take memory as they are used.

    Raises:
        InputError: if the file is missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; the checkpoint is incomplete, copy or train it again")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); copy or train the checkpoint again") from error


def chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes, never all at once.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise InputError(f"cannot read {path} of the checkpoint: {error.strerror}") from error


def short_hash(parts: Iterable[bytes]) -> str:
    """Twelve hexadecimal digits of all parts together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:12]
