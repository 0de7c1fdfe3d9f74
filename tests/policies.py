"""Small policies for tests; run as a script, serves one and writes its endpoint to standard output."""

import hashlib
import sys
import threading
from collections.abc import Sequence

import numpy as np

from policy_server.server import PolicyServer
from vla.api import ActionChunk, Camera, InputError, Observation, PolicySpec, Quantity

SPEC = PolicySpec(
    cameras=(Camera("front", 4, 6), Camera("wrist", 2, 2)),
    state=(Quantity("x", "m"), Quantity("gripper", "1")),
    actions=(Quantity("dx", "m"), Quantity("dy", "m"), Quantity("gripper", "1")),
    horizon=5,
    period=0.2,
    model="digest",
    checkpoint="c0ffee",
)


class Digest:
    """Actions are a hash of everything in the observation and of how often its session was asked since reset."""

    def __init__(self, spec: PolicySpec = SPEC) -> None:
        self.spec = spec
        self.asked: dict[str, int] = {}

    def infer(self, observation: Observation) -> ActionChunk:
        if observation.instruction == "refuse":
            raise InputError("this policy does not know the instruction 'refuse'")
        if observation.instruction == "fail":
            raise ZeroDivisionError("the policy is broken")
        count = self.asked[observation.session] = self.asked.get(observation.session, 0) + 1
        digest = hashlib.sha256(repr((observation.instruction, observation.session, observation.step, count)).encode())
        for camera in self.spec.cameras:
            digest.update(observation.images[camera.name].tobytes())
        assert observation.state is not None
        digest.update(observation.state.tobytes())
        random = np.random.default_rng(np.frombuffer(digest.digest(), np.uint32))
        actions = random.normal(size=(self.spec.horizon, len(self.spec.actions))).astype(np.float32)
        return ActionChunk(actions, self.spec.period, {"total": 1.5})

    def reset(self, session: str) -> None:
        self.asked.pop(session, None)


class Gated(Digest):
    """Digest that says when an inference begins and ends it when told to; remembers the order of what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.order: list[tuple[str, str, int]] = []

    def infer(self, observation: Observation) -> ActionChunk:
        self.order.append(("infer", observation.session, observation.step))
        self.begun.release()
        assert self.gate.acquire(timeout=30)
        return super().infer(observation)

    def reset(self, session: str) -> None:
        self.order.append(("reset", session, 0))
        super().reset(session)


class Batched(Gated):
    """Gated that answers several at once, one begin and one gate for each call; remembers each batch's sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def infer_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.batches.append([observation.session for observation in observations])
        self.begun.release()
        assert self.gate.acquire(timeout=30)
        before = dict(self.asked)
        try:
            return [Digest.infer(self, observation) for observation in observations]
        except Exception:
            self.asked = before
            raise


class Announcing(Digest):
    """Digest that hangs when told so, after it said so on standard output."""

    def infer(self, observation: Observation) -> ActionChunk:
        if observation.instruction == "hang":
            sys.stdout.write("hanging\n")
            sys.stdout.flush()
            threading.Event().wait()
        return super().infer(observation)


def observation(seed: int = 0, instruction: str = "put the spoon on the towel", **changes: object) -> Observation:
    """A random observation that fits SPEC."""
    random = np.random.default_rng(seed)
    images = {c.name: random.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras}
    state = random.normal(size=len(SPEC.state)).astype(np.float32)
    return Observation(**{"images": images, "instruction": instruction, "state": state, **changes})  # type: ignore[arg-type]


if __name__ == "__main__":
    with PolicyServer(Announcing()) as running:
        sys.stdout.write(running.endpoint + "\n")
        sys.stdout.flush()
        running.serve_forever()
