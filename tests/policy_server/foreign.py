"""Other projects' clients and their golden messages, for the tests of the dialects."""

import base64
import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zmq

from benchmarks.peers import FORMATS
from tests.policy_server.sockets import TIMEOUT_MS
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity

_FILE = Path(__file__).parents[1] / "data" / "peer_wire_golden.json"
GOLDEN = {
    name: base64.b64decode(entry["base64"])
    for name, entry in json.loads(_FILE.read_text()).items()
    if isinstance(entry, dict) and "base64" in entry
}
IMAGE = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
STATE = np.linspace(-1, 1, 7)
ACTIONS = (np.arange(112) / 100).reshape(16, 7).astype(np.float32)
INSTRUCTION = "put the spoon on the towel"

_JOINTS = [f"joint_{index}" for index in range(7)]
GOLDEN_SPEC = PolicySpec(
    cameras=(Camera("head", 4, 5),),
    state=tuple(Quantity(name, "rad") for name in _JOINTS),
    actions=tuple(Quantity(name, "rad") for name in _JOINTS),
    horizon=16,
    period=0.1,
    model="golden",
)
GR00T = {
    "dialect": "gr00t",
    "cameras": {"head": "ego_view"},
    "state": {"arm": _JOINTS},
    "actions": {"arm": _JOINTS},
    "action_configs": {"arm": {"rep": "DELTA", "type": "EEF", "format": "XYZ_ROTVEC", "state_key": None}},
}
OPENPI = {"dialect": "openpi", "endpoint": "ws://127.0.0.1:0", "cameras": {"head": "observation/image"}}


class Golden:
    """Answers what the golden replies hold; keeps what it was asked."""

    spec = GOLDEN_SPEC

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.forgotten: list[str] = []

    def infer(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        return ActionChunk(ACTIONS, self.spec.period)

    def reset(self, session: str) -> None:
        self.forgotten.append(session)

    def saw_the_golden_observation(self) -> bool:
        seen = self.seen[-1]
        np.testing.assert_array_equal(seen.images["head"], IMAGE)
        np.testing.assert_allclose(seen.state, STATE, rtol=1e-6)  # type: ignore[arg-type]
        return seen.instruction == INSTRUCTION


class Gr00t:
    """A client of one generation: n1.5, n1.6 (legacy arrays) or n1.7 (msgpack-numpy's), on a REQ socket."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, generation: str) -> None:
        self.flat = generation == "n1.5"
        self.default, self.hook = FORMATS["gr00t_nd" if generation == "n1.7" else "gr00t_legacy"]
        self.socket = context.socket(zmq.REQ)
        self.socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
        self.socket.connect(endpoint)

    def __del__(self) -> None:
        self.socket.close(linger=0)

    def ask(self, endpoint: str, **data: Any) -> Any:
        """What the endpoint answers.

        Raises:
            RuntimeError: if it answers an error, as the clients do.
        """
        self.send({"endpoint": endpoint, **data})
        return self.receive()

    def send(self, request: Any) -> None:
        packed = msgpack.packb(request, default=self.default)
        assert packed is not None
        self.socket.send(packed)

    def receive(self) -> Any:
        reply = self.socket.recv()
        if reply == b"ERROR":
            raise RuntimeError("ERROR")
        value = msgpack.unpackb(reply, object_hook=self.hook)
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(value["error"])
        return value

    def observation(self, image: Any = IMAGE, state: Any = STATE, text: str = INSTRUCTION) -> dict[str, Any]:
        """As this generation sends it."""
        state = np.asarray(state, np.float32)
        if self.flat:
            task = "annotation.human.action.task_description"
            return {"video.ego_view": image[None], "state.arm": state[None], task: [text]}
        nested = {
            "video": {"ego_view": image[None, None]},
            "state": {"arm": state[None, None]},
            "language": {"task": [[text]]},
        }
        return {"observation": nested, "options": None}

    def act(self, **changes: Any) -> Any:
        """The actions for an observation, (16, 7) whatever the generation."""
        reply = self.ask("get_action", data=self.observation(**changes))
        return reply["action.arm"] if self.flat else reply[0]["arm"][0]
