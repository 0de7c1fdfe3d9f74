"""A world of another suite in a process of its own, whose Python environment may differ from this one."""

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.suites.adapter import Suite, SuiteError, split
from eval.suites.serving import FACTS, receive, send

_IMAGE = "image "
_ROOT = Path(__file__).parents[2]
# At the end of its path, so that what both environments have is the suite's own there.
_START = "import sys; sys.path.append(sys.argv.pop(1)); from eval.suites.serving import main; main(*sys.argv[1:])"


class SuiteProcessError(RuntimeError):
    """The suite's process failed or is gone; the message holds what it said."""


class ProcessWorld:
    """A world with the attributes of `eval.suites.adapter.World`, played elsewhere. Close it after use.

    Args:
        task: `<suite>:<task>`.
        suite: of the task.
        size: (height, width) [pixels] of images, or None for no images.
        python: interpreter of an environment that has the suite.

    Raises:
        SuiteError: if it cannot be started there.
    """

    hold_action: NDArray[np.float32]
    control_period: float
    renderer_name: str

    def __init__(self, task: str, suite: Suite, size: tuple[int, int] | None, python: str) -> None:
        name, inner = split(task)
        place = str(Path(name).resolve()) if name.endswith(".py") else name
        height, width = size or (0, 0)
        command = [python, "-c", _START, str(_ROOT), place, inner, str(height), str(width)]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise SuiteError(f"suite_python={python} cannot be started: {error.strerror}") from error
        try:
            facts, arrays = self._receive()
        except SuiteProcessError as error:
            self.close()
            raise SuiteError(f"{task} cannot be played with {python}: {error}; install it: {suite.install}") from error
        for fact in FACTS:
            setattr(self, fact, tuple(facts[fact]) if isinstance(facts[fact], list) else facts[fact])
        self.hold_action = arrays["hold_action"]
        self._has_expert = bool(facts["expert"])

    @property
    def unwrapped(self) -> "ProcessWorld":
        return self

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode, of the expert too."""
        info, arrays = self._ask({"verb": "reset", "seed": seed, "options": dict(options or {})})
        return self._seen(arrays), info

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control period."""
        info, arrays = self._ask({"verb": "step"}, {"action": np.asarray(action, np.float32)})
        reward, truncated = info.pop("reward"), info.pop("truncated")
        return self._seen(arrays), reward, False, truncated, info

    def make_expert(self) -> "ProcessExpert":
        """The scripted expert there.

        Raises:
            SuiteError: if the suite has none.
        """
        if not self._has_expert:
            raise SuiteError("this suite has no scripted expert; choose another policy")
        return ProcessExpert(self)

    def expert_action(self) -> NDArray[np.float32]:
        """What the expert does now, (A,)."""
        return self._ask({"verb": "expert"})[1]["action"]

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was to be written has no reader any more
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _seen(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """An observation; what holds the robot may change with every step."""
        self.hold_action = arrays["hold_action"]
        images = {name.removeprefix(_IMAGE): value for name, value in arrays.items() if name.startswith(_IMAGE)}
        return {"images": images, "state": arrays["state"]}

    def _ask(self, content: Any, arrays: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, content, arrays)
        except OSError as error:
            raise SuiteProcessError(f"the suite's process is gone (status {self._process.poll()})") from error
        return self._receive()

    def _receive(self) -> tuple[Any, dict[str, Any]]:
        assert self._process.stdout is not None
        try:
            content, arrays = receive(self._process.stdout)
        except EOFError as error:
            status = self._process.wait(5.0)
            raise SuiteProcessError(
                f"the suite's process ended with status {status}; its last words are above"
            ) from error
        if "error" in content:
            raise SuiteProcessError(content["error"])
        return content, arrays


class ProcessExpert:
    """The scripted expert in a suite's process; it is reset with the world."""

    def __init__(self, world: ProcessWorld) -> None:
        self._world = world

    def reset(self) -> None:
        """Done with the world."""

    def action(self) -> NDArray[np.float32]:
        return self._world.expert_action()
