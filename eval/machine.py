"""Where and with what a result was made: everything needed to make it again."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy", "pyzmq", "gymnasium", "mujoco", "torch", "transformers", "statsmodels", "scipy", "av", "hydra-core",
)  # fmt: skip


def describe(argv: Sequence[str], gl_renderer: str) -> dict[str, Any]:
    """The `meta` of a result file.

    Args:
        argv: the command as it was started.
        gl_renderer: what drew the images, as OpenGL names it.
    """
    from vla.precision import multiplies_bfloat16  # `machine` is asked without torch, too

    used = software(gl_renderer)
    return {
        "version": used.pop("version"),
        "command": shlex.join([*started(argv[0]), *argv[1:]]),
        "machine": {**machine(), "bfloat16": multiplies_bfloat16("cpu")},
        **used,
    }


def software(gl_renderer: str) -> dict[str, Any]:
    """What runs here: the part of `describe` that an upgrade changes."""
    return {
        "version": version("cadence-vla"),
        "gl_renderer": gl_renderer,
        "packages": {name: version(name) for name in PACKAGES},
        "git": git_commit(Path(__file__)),
    }


def changes(used: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between software that ran parts of one thing, in words, in the order of use.

    Args:
        used: of `software`.
    """
    flat = [
        {"Cadence": each.get("version"), "commit": each.get("git"), "OpenGL renderer": each.get("gl_renderer")}
        | each.get("packages", {})
        for each in used
    ]
    names = dict.fromkeys(name for each in flat for name in each)
    seen = {name: list(dict.fromkeys(str(each.get(name) or "unknown") for each in flat)) for name in names}
    return [f"{name} {', then '.join(values)}" for name, values in seen.items() if len(values) > 1]


def started(program: str) -> list[str]:
    """The words that start `program`: a console script, or `python -m` and a module."""
    path = Path(program)
    specification = getattr(sys.modules["__main__"], "__spec__", None)
    if path.name != "__main__.py" or specification is None:
        return [path.name]
    return ["python", "-m", specification.parent]


def machine() -> dict[str, Any]:
    """Operating system, processor and memory [bytes]."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def version(package: str) -> str:
    """Installed version, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_commit(file: Path) -> str:
    """Commit of the source tree, with `-dirty` if files differ from it; "" if no repository tracks this file."""
    git = ["git", "-C", str(file.parent)]
    tracked = [*git, "ls-files", "--error-unmatch", file.name]  # not so in an environment inside another's repository
    describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        subprocess.run(tracked, capture_output=True, check=True, timeout=10)
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
