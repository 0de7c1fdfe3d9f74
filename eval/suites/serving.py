"""The other end of `eval.suites.process`: plays one world of a suite for whoever holds this process's pipes.

It needs gymnasium and numpy beside the suite. Messages are a length of 8 bytes and an .npz file: `json` holds names and
numbers, everything else arrays. Nothing is pickled.
"""

import io
import json
import os
import sys
from typing import IO, Any

import numpy as np

from eval.suites.adapter import find

FACTS = ("control_period", "state_names", "state_units", "action_names", "action_units", "renderer_name")
JSON = "json"


def send(pipe: IO[bytes], content: Any, arrays: dict[str, Any] | None = None) -> None:
    """Write one message."""
    file = io.BytesIO()
    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    np.savez(file, **{JSON: text}, **(arrays or {}))
    pipe.write(len(file.getvalue()).to_bytes(8, "little") + file.getvalue())
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[Any, dict[str, Any]]:
    """Read one message: content and arrays.

    Raises:
        EOFError: if the other end is gone.
    """
    length = int.from_bytes(_exactly(pipe, 8), "little")
    with np.load(io.BytesIO(_exactly(pipe, length)), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop(JSON).tobytes()), arrays


def main(suite: str, task: str, height: str, width: str) -> None:
    """Answer until the pipe is closed; a height of 0 draws no images."""
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo reads it when a suite imports it: draw without a display
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the suite prints must not get between the answers
    size = None if int(height) == 0 else (int(height), int(width))
    try:
        world = find(suite).make(task, size)
    except Exception as error:  # whatever a suite raises, the evaluation says it
        send(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    facts = {name: getattr(world, name) for name in FACTS}
    send(answers, {**facts, "expert": world.expert is not None}, {"hold_action": world.hold_action})
    expert = world.make_expert() if world.expert else None
    while True:
        try:
            asked, arrays = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            send(answers, *_answer(world, expert, asked, arrays))
        except Exception as error:
            send(answers, {"error": f"{type(error).__name__}: {error}"})


def _answer(world: Any, expert: Any, asked: Any, arrays: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    match asked["verb"]:
        case "reset":
            raw, info = world.reset(seed=asked["seed"], options=asked["options"])
            if expert is not None:
                expert.reset()
            return info, _arrays(world, raw)
        case "step":
            raw, reward, _, truncated, info = world.step(arrays["action"])
            return {**info, "reward": reward, "truncated": truncated}, _arrays(world, raw)
        case "expert":
            return {}, {"action": expert.action()}
        case verb:
            raise ValueError(f"unknown verb {verb!r}")


def _arrays(world: Any, raw: dict[str, Any]) -> dict[str, Any]:
    images = {f"image {name}": image for name, image in raw["images"].items()}
    return {"state": raw["state"], "hold_action": world.hold_action, **images}


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    parts, missing = [], count
    while missing:
        part = pipe.read(missing)
        if not part:
            raise EOFError("the other end of the pipe is gone")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
