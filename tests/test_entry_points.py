"""The commands as they are installed: they exist, and say what is missing where only a part of Cadence is installed."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cadence_configs.entry import EXTRAS, missing

TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")  # pytest brings the other one
ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = TOML.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS: dict[str, str] = PROJECT["scripts"]
NEEDING = {name: target for name, target in SCRIPTS.items() if name.removeprefix("cadence-") in EXTRAS}
MODULES = [path.parent.relative_to(ROOT) for path in ROOT.glob("[a-z]*/**/__main__.py")]

# As after an install without extras: of all third-party packages only numpy and pyzmq are there.
BASE = """
import importlib, runpy, sys

class OnlyTheBase:
    def find_spec(self, name, path=None, target=None):
        head = name.partition(".")[0]
        there = {*sys.stdlib_module_names, "numpy", "zmq", "cadence_configs", "envs", "eval", "policy_server", "vla"}
        if head not in there and not head.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, OnlyTheBase())
module, _, function = sys.argv.pop(1).partition(":")
if function:
    getattr(importlib.import_module(module), function)()
else:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def in_the_base_install(target: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BASE, target, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("name", NEEDING)
def test_a_command_names_what_is_not_installed_and_how_to_install_it(name: str) -> None:
    ended = in_the_base_install(SCRIPTS[name])
    assert ended.returncode == 2
    extra = EXTRAS[name.removeprefix("cadence-")]
    needs = r"error: {} needs (omegaconf|gymnasium), which is not installed: pip install 'cadence-vla\[{}\]'\n"
    assert re.fullmatch(needs.format(name, extra), ended.stderr)
    assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("module", [".".join(folder.parts) for folder in MODULES])
def test_so_does_a_package_that_is_run(module: str) -> None:
    ended = in_the_base_install(module)
    assert ended.returncode == 2
    needs = (
        r"error: (cadence-\w+|python -m {}) needs \w+, which is not installed: pip install 'cadence-vla\[[\w,]+\]'\n"
    )
    assert re.fullmatch(needs.format(re.escape(module)), ended.stderr)


@pytest.mark.parametrize("name", sorted(set(SCRIPTS) - set(NEEDING)))
def test_the_other_commands_work_without_extras(name: str) -> None:
    assert name in ("cadence-keys", "cadence-doctor")
    ended = in_the_base_install(SCRIPTS[name], "--help")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_is_there(name: str) -> None:
    module, _, function = SCRIPTS[name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_a_module_of_ours_that_is_missing_is_no_package_to_install() -> None:
    error = ModuleNotFoundError("No module named 'vla.nothing'", name="vla.nothing")
    with pytest.raises(ModuleNotFoundError, match=r"vla\.nothing"):
        missing("eval", error)
