"""A tiny gymnasium world and policies for it; run as a module, serves one of them like `policy_server` does."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from policy_server.server import PolicyServer
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity

CAMERA = Camera("front", 16, 16)
NAMES, UNITS = ("x", "y"), ("m", "m")
QUANTITIES = tuple(Quantity(name, unit) for name, unit in zip(NAMES, UNITS, strict=True))
STEPS = 6
SPEC = PolicySpec((CAMERA,), QUANTITIES, QUANTITIES, horizon=3, period=0.2, model="toy", checkpoint="c0ffee")


class ToyWorld(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """A point moved by its actions; success while x > 0, strict success while y > 0 too."""

    state_names = action_names = NAMES
    state_units = action_units = UNITS
    control_period = 0.2
    renderer_name = "none"
    hold_action = np.zeros(2, np.float32)

    def __init__(self) -> None:
        self.place = np.zeros(2)
        self.elapsed = 0
        self.closed = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.start = options
        self.place = self.np_random.normal(scale=0.01, size=2)
        self.elapsed = 0
        return self._observation(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.place = self.place + action
        self.elapsed += 1
        return self._observation(), 0.0, False, self.elapsed >= STEPS, self._info()

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> dict[str, Any]:
        image = np.full((CAMERA.height, CAMERA.width, 3), 40 * self.elapsed, np.uint8)
        return {"images": {CAMERA.name: image}, "state": self.place.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        x, y = self.place
        return {"instruction": "go right", "success": bool(x > 0), "success_strict": bool(x > 0 and y > 0)}


class Wanderer:
    """Actions drawn from what is seen and from how often its session was asked, so that every mix-up shows."""

    def __init__(self, spec: PolicySpec = SPEC) -> None:
        self.spec = spec
        self.asked: dict[str, int] = {}

    def infer(self, observation: Observation) -> ActionChunk:
        self.spec.check(observation)
        assert observation.state is not None
        count = self.asked[observation.session] = self.asked.get(observation.session, 0) + 1
        parts = [observation.session.encode(), bytes([count, observation.step]), observation.state.tobytes()]
        draws = np.random.default_rng(list(b"".join(parts)))
        actions = draws.normal(scale=0.02, size=(self.spec.horizon, 2)).astype(np.float32)
        return ActionChunk(actions, self.spec.period, {"encode": 1.0, "total": 2.0 + observation.step})

    def reset(self, session: str) -> None:
        self.asked.pop(session, None)


class Mortal(Wanderer):
    """Kills its process when asked in the middle of a session whose name ends as told."""

    def __init__(self, fatal: str) -> None:
        super().__init__()
        self._fatal = fatal

    def infer(self, observation: Observation) -> ActionChunk:
        if observation.session.endswith(self._fatal) and observation.step > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().infer(observation)


class Scripted:
    """The same action each step."""

    def __init__(self, x: float, y: float, spec: PolicySpec = SPEC) -> None:
        self.spec = spec
        self._actions = np.tile(np.array([x, y], np.float32), (spec.horizon, 1))
        self.sessions: list[str] = []
        self.steps: list[int] = []

    def infer(self, observation: Observation) -> ActionChunk:
        self.steps.append(observation.step)
        return ActionChunk(self._actions, self.spec.period, {"total": 1.0})

    def reset(self, session: str) -> None:
        self.sessions.append(session)


def serve(arguments: dict[str, str]) -> int:
    """Serve a Mortal and announce the endpoint; `refuse`, or a file named by `crash`, ends it before that."""
    if "refuse" in arguments:
        sys.stderr.write("a warning\nerror: unknown model 'nonsense'; allowed: toy (error: none)\n")
        return 2
    if Path(arguments.get("crash", "/nowhere")).exists():
        raise RuntimeError("the toy broke on the way up")
    with PolicyServer(Mortal(arguments.get("fatal", "nobody")), arguments["endpoint"]) as server:
        partial = Path(arguments["announce"] + ".part")
        partial.write_text(server.endpoint + "\n")
        partial.replace(arguments["announce"])
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(serve({name: value.strip("'") for name, value in (word.split("=", 1) for word in sys.argv[1:])}))
