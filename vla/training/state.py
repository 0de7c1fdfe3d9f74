"""The file a training run continues from."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vla.api import InputError

_LATER = ("wordings", "tokenizer")  # of an identity: states that were written before have none
_KINDS = {"step": int, "cloning": dict, "learner": dict, "average": dict, "optimizer": list}


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state; a kill while writing leaves the previous one whole."""
    partial = path.with_name(f"{path.name}.partial")
    torch.save(state, partial)
    partial.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """The inverse of `write_state`.

    Raises:
        InputError: if the file is damaged or incomplete.
    """
    if not zipfile.is_zipfile(path):
        raise damaged(path, "it is cut or of another kind")
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # what a damaged archive raises depends on where it is damaged
        raise damaged(path, str(error).partition("\n")[0]) from error
    if not isinstance(state, dict):
        raise damaged(path, f"it holds a {type(state).__name__}")
    wrong = [key for key, kind in _KINDS.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise damaged(path, f"{', '.join(wrong)} missing or of a wrong kind")
    return state


def damaged(path: Path, reason: str) -> InputError:
    """The error that says so and what to do."""
    return InputError(f"{path} is damaged ({reason}); delete it to train again, or choose another out=")


def known(saved: Mapping[str, Any] | None, mine: Mapping[str, Any]) -> Mapping[str, Any]:
    """The identity in a state; what states did not hold when it was written is taken to be as mine."""
    return mine if saved is None else {key: mine[key] for key in _LATER if key in mine} | dict(saved)


def differing(mine: Mapping[str, Any], saved: Mapping[str, Any]) -> list[str]:
    """Keys that only one side has, or whose values differ."""
    missing = object()
    return [key for key in {**mine, **saved} if mine.get(key, missing) != saved.get(key, missing)]
