"""The commands: where only a part of Cadence is installed they say what else to install (nothing but Python)."""

import sys
from collections.abc import Callable
from importlib import import_module

WRONG_USAGE = 2
OURS = ("cadence_configs", "envs", "eval", "policy_server", "vla")
EXTRAS = {  # command -> what it needs beyond the base install
    "eval": "all",
    "serve": "server",
    "top": "server",
    "profile": "server,eval",
    "compare": "eval",
    "collect": "sim,data",
    "dagger": "all",
    "train": "server,data",
    "calibrate": "server,data",
    "convert": "server",
    "gallery": "sim,data",
    "view": "sim,data",
}
UNNAMED = {"gallery": "python -m envs.gallery", "view": "python -m envs.view"}  # commands that are no console scripts


def missing(command: str, error: ModuleNotFoundError) -> str:
    """What to install for a command.

    Raises:
        ModuleNotFoundError: the error itself, if a module of Cadence's own is missing.
    """
    package = (error.name or "").partition(".")[0]
    if package in ("", *OURS):
        raise error
    extra = EXTRAS.get(command, "all")
    name = UNNAMED.get(command, f"cadence-{command}")
    return f"{name} needs {package}, which is not installed: pip install 'cadence-vla[{extra}]'"


def _script(command: str, module: str) -> Callable[[], None]:
    def main() -> None:
        try:
            run = import_module(module).main
        except ModuleNotFoundError as error:
            print(f"error: {missing(command, error)}", file=sys.stderr)  # noqa: T201 - the one line a user sees
            sys.exit(WRONG_USAGE)
        run()

    return main


evaluate = _script("eval", "eval.__main__")
serve = _script("serve", "policy_server.__main__")
top = _script("top", "policy_server.top.__main__")
profile = _script("profile", "eval.profiler.__main__")
compare = _script("compare", "eval.compare.__main__")
collect = _script("collect", "envs.__main__")
dagger = _script("dagger", "eval.dagger.__main__")
train = _script("train", "vla.training.__main__")
calibrate = _script("calibrate", "vla.calibration.__main__")
convert = _script("convert", "vla.checkpoints.__main__")
gallery = _script("gallery", "envs.gallery.__main__")
view = _script("view", "envs.view.__main__")
