"""Checkpoints that many tests read; none may change them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.vla import published


@pytest.fixture(scope="session")
def cogact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CogACT in its published layout."""
    return published.write_cogact(tmp_path_factory.mktemp("cogact") / "run", published.random_parts())


@pytest.fixture(scope="session")
def openvla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OpenVLA in its published layout."""
    tensors = published.hugging_face_names(published.random_parts())
    return published.write_openvla(tmp_path_factory.mktemp("openvla") / "model", tensors)


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a checkpoint to where it may be changed."""
    return lambda checkpoint: Path(shutil.copytree(checkpoint, tmp_path / "damaged"))
