"""Other projects' packages, unchanged, in environments of their own that are kept in pytest's cache."""

import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest


def environment(request: pytest.FixtureRequest, name: str, *installs: Sequence[str], ours: bool = False) -> Path:
    """The interpreter of an environment with these packages; skips the test where they cannot be installed.

    Args:
        request: of the fixture.
        name: of the environment, for example the package's.
        installs: arguments of `pip install`, one call after the other.
        ours: whether it also sees the packages of this environment, after its own.
    """
    home = Path(request.config.cache.mkdir(name))  # type: ignore[union-attr]
    python, done = home / "bin" / "python", home / "installed"
    if not (done.exists() and python.exists()):
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=240)
            if ours:
                (site_packages(python) / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
            for arguments in installs:
                command = [str(python), "-m", "pip", "install", "-q", "--only-binary=:all:", *arguments]
                subprocess.run(command, check=True, capture_output=True, timeout=240)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"{name} cannot be installed in an environment of its own here: {error}")
        done.touch()
    return python


def site_packages(python: Path) -> Path:
    """Where the packages of an environment are."""
    return next(python.parents[1].glob("lib/python*/site-packages"))
