"""What each kind of message says, as the types of `vla.api`: requests, replies and back (numpy only).

The layout is specified in `policy_server.wire`; every function here is pure.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from policy_server.arrays import IMAGE, RAW, Packed
from policy_server.bodies import (
    built,
    read_cameras,
    read_object,
    read_positive,
    read_quantities,
    read_rows,
    read_text,
    read_texts,
)
from policy_server.checks import WireError, is_integer, is_number
from policy_server.codecs import Codec, unpack
from policy_server.wire import Message
from vla.api import ActionChunk, Camera, InputError, Observation, PolicySpec, Quantity

COMMITTED = "committed"
MAX_ERROR_TEXT = 4000


@dataclass(frozen=True)
class Embodiment:
    """What a client will send and what it expects back; the server refuses it if its policy needs something else.

    Attributes:
        cameras: images the robot sends.
        state: numbers of `Observation.state`, empty if it sends none.
        actions: columns the robot can execute, in order.
        period: [s] between the robot's control steps.
    """

    cameras: tuple[Camera, ...]
    state: tuple[Quantity, ...]
    actions: tuple[Quantity, ...]
    period: float

    def differences(self, spec: PolicySpec) -> list[str]:
        """Why this robot and this policy do not fit, both sides named; empty if they do."""
        found = [
            f"the policy needs camera {_camera(needed)}, the client sends {list(map(_camera, self.cameras))}"
            for needed in spec.cameras
            if needed not in self.cameras
        ]
        if spec.state and spec.state != self.state:
            found.append(f"the policy needs the state {_units(spec.state)}, the client sends {_units(self.state)}")
        if spec.actions != self.actions:
            found.append(f"the policy gives actions {_units(spec.actions)}, the client expects {_units(self.actions)}")
        if abs(spec.period - self.period) > 1e-6 * spec.period:
            found.append(f"the policy acts every {spec.period} s, the client every {self.period} s")
        return found


def hello(seq: int, embodiment: Embodiment | None) -> Message:
    """Ask for the PolicySpec and announce what will be sent."""
    return Message("hello", seq, body={"embodiment": None if embodiment is None else _embodiment_to_json(embodiment)})


def read_hello(message: Message) -> Embodiment | None:
    """What the client announced, or None.

    Raises:
        WireError: on a body that is not the specification's.
    """
    announced = _body(message, "embodiment")["embodiment"]
    if announced is None:
        return None
    plain = read_object("embodiment", announced, "cameras", "state", "actions", "period")
    return Embodiment(
        cameras=read_cameras(plain["cameras"]),
        state=read_quantities("state", plain["state"]),
        actions=read_quantities("actions", plain["actions"]),
        period=read_positive("period", plain["period"]),
    )


def welcome(seq: int, spec: PolicySpec, codecs: Sequence[str] = (RAW,)) -> Message:
    """The reply to hello; `codecs` are those that the server can read."""
    return Message("hello", seq, body={"spec": _spec_to_json(spec), "spec_id": spec_id(spec), "codecs": list(codecs)})


def read_welcome(message: Message) -> tuple[PolicySpec, str]:
    """The server's PolicySpec and its identity.

    Raises:
        WireError: on a body that is not the specification's.
    """
    body = _body(message, "spec", "spec_id", "codecs")
    keys = ("cameras", "state", "actions", "horizon", "period", "model", "recipe", "checkpoint", "inpaints", "resize")
    plain = read_object("spec", body["spec"], *keys)
    parts: dict[str, Any] = {
        "cameras": read_cameras(plain["cameras"]),
        "state": read_quantities("state", plain["state"]),
        "actions": read_quantities("actions", plain["actions"]),
        "horizon": plain["horizon"],
        "inpaints": plain["inpaints"],
        "resize": None if plain["resize"] is None else tuple(read_rows("resize", [plain["resize"]], str, int)[0]),
        "period": read_positive("period", plain["period"]),
        **{name: read_text(name, plain[name]) for name in ("model", "recipe", "checkpoint")},
    }
    spec = built(lambda: PolicySpec(**parts))
    return spec, read_text("spec_id", body["spec_id"])


def read_codecs(message: Message) -> list[str]:
    """The codecs that a server's reply to hello lists.

    Raises:
        WireError: on anything but a list of names.
    """
    return read_texts("codecs", _body(message, "spec", "spec_id", "codecs")["codecs"])


@lru_cache(maxsize=16)
def spec_id(spec: PolicySpec) -> str:
    """Sixteen hex digits that change when anything in the spec changes."""
    return hashlib.sha256(json.dumps(_spec_to_json(spec), sort_keys=True).encode()).hexdigest()[:16]


def infer(
    seq: int,
    observation: Observation,
    deadline_ms: float | None,
    agreed: str | None,
    codec: Codec = Codec(),  # noqa: B008 - frozen
) -> Message:
    """Ask for the next actions; `agreed` is the `spec_id` that hello answered."""
    arrays: dict[str, Any] = {IMAGE + name: image for name, image in observation.images.items()}
    packed: dict[str, Packed] = {}
    if codec.name != RAW:
        packed, arrays = {name: codec.pack(image) for name, image in arrays.items()}, {}
    if observation.state is not None:
        arrays["state"] = observation.state
    if observation.committed is not None:
        arrays[COMMITTED] = observation.committed
    body = {
        "instruction": observation.instruction,
        "step": observation.step,
        "time": observation.time,
        "frozen": observation.frozen,
        "spec_id": agreed,
    }
    return Message("infer", seq, observation.session, deadline_ms, codec.name, body=body, arrays=arrays, packed=packed)


def read_infer(message: Message, spec: PolicySpec, identity: str | None = None) -> Observation:
    """The observation in a request, checked against the spec of the policy; `identity` is its `spec_id`, if known.

    Images that the policy does not need are left out. Packed ones are black until `unpacked`: the newest observation
    wins, so most of a fast robot's images are never decompressed.

    Raises:
        WireError: on a body that is not the specification's, or a `spec_id` of another policy.
        InputError: on an image or state with a wrong dtype or shape.
    """
    body = _body(message, "instruction", "step", "time", "frozen", "spec_id")
    agreed, current = body["spec_id"], identity or spec_id(spec)
    if agreed is not None and agreed != current:
        text = (
            f"the client agreed on spec {str(agreed)[:40]!a}, this server serves {spec.model!r} with spec {current!r}"
        )
        raise WireError(text, type="spec", hint="the server was restarted with another policy: connect again")
    if not is_integer(body["step"]) or not is_number(body["time"]):
        raise WireError(f"step and time must be numbers, got {body['step']!r} and {body['time']!r}")
    unknown = [name for name in message.arrays if name not in ("state", COMMITTED) and not name.startswith(IMAGE)]
    if unknown:
        raise InputError(f"an observation has arrays {IMAGE + '<camera>'!r}, 'state' and {COMMITTED!r}, got {unknown}")
    observation = Observation(
        images=_images(message),
        instruction=body["instruction"],
        state=message.arrays.get("state"),
        session=message.session,
        step=body["step"],
        time=body["time"],
        committed=message.arrays.get(COMMITTED),
        frozen=body["frozen"],
    )
    spec.check(observation)
    if len(observation.images) == len(spec.cameras):
        return observation
    return replace(observation, images={camera.name: observation.images[camera.name] for camera in spec.cameras})


def unpacked(observation: Observation, message: Message) -> Observation:
    """The observation with the images that the message packed.

    Raises:
        WireError: if one of them is not what was promised.
    """
    images = {
        name: unpack(name, message.packed[IMAGE + name], message.codec) if IMAGE + name in message.packed else image
        for name, image in observation.images.items()
    }
    return replace(observation, images=images)


def actions(request: Message, chunk: ActionChunk, timing: Mapping[str, float]) -> Message:
    """The reply to infer; `timing` is added to the chunk's own."""
    merged = {stage: float(value) for stage, value in {**chunk.timing, **timing}.items()}
    body = {"period": float(chunk.period), "codec": request.codec}
    arrays = {"actions": chunk.actions}
    return Message("infer", request.seq, request.session, timing=merged, body=body, arrays=arrays)


def read_actions(message: Message, spec: PolicySpec, timing: Mapping[str, float] | None = None) -> ActionChunk:
    """The chunk in a reply, checked against the spec; `actions` is the receiver's own copy, `timing` is added to its.

    Raises:
        WireError: on a reply that is not the specification's or does not fit the spec.
    """
    got = message.arrays.get("actions", np.empty(0, np.float32))
    needed = (spec.horizon, len(spec.actions))
    if got.dtype != np.float32 or got.shape != needed:
        raise WireError(f"actions must be float32 {needed}, the server answered {got.dtype} {got.shape}")
    merged = {**message.timing, **(timing or {})}
    return ActionChunk(got.copy(), read_positive("period", _body(message, "period", "codec")["period"]), merged)


def timed(reply: Message, elapsed: float) -> Message:
    """A reply that took so long [s] and needed no policy."""
    return replace(reply, timing={"server": 1000 * elapsed})


def failure(error_type: str, text: str, hint: str = "", seq: int = 0, session: str = "") -> Message:
    """An error reply."""
    body = {"type": error_type, "message": text[:MAX_ERROR_TEXT], "hint": hint[:MAX_ERROR_TEXT]}
    return Message("error", seq, session, body=body)


def read_failure(message: Message) -> tuple[str, str, str]:
    """Type, message and hint of an error reply.

    Raises:
        WireError: on a body that is not the specification's.
    """
    body = _body(message, "type", "message", "hint")
    return read_text("type", body["type"]), str(body["message"]), str(body["hint"])


def empty(message: Message) -> None:
    """Check that this message says nothing beyond its kind.

    Raises:
        WireError: if it has a body or arrays.
    """
    _body(message)
    if message.arrays or message.packed:
        raise WireError(f"{message.kind} takes no arrays, got {[*message.arrays, *message.packed]}")


def _images(message: Message) -> dict[str, Any]:
    """Camera -> image; for a packed one black of the promised size, which costs no memory."""
    images = {name[len(IMAGE) :]: array for name, array in message.arrays.items() if name.startswith(IMAGE)}
    for name, packed in message.packed.items():
        images[name[len(IMAGE) :]] = np.broadcast_to(np.uint8(0), packed.shape)
    return images


def _body(message: Message, *keys: str) -> Mapping[str, Any]:
    return read_object(f"the body of {message.kind}", message.body, *keys)


def _embodiment_to_json(side: Embodiment | PolicySpec) -> dict[str, Any]:
    return {
        "cameras": [[camera.name, camera.height, camera.width] for camera in side.cameras],
        "state": [[quantity.name, quantity.unit] for quantity in side.state],
        "actions": [[quantity.name, quantity.unit] for quantity in side.actions],
        "period": float(side.period),
    }


def _spec_to_json(spec: PolicySpec) -> dict[str, Any]:
    names = {"model": spec.model, "recipe": spec.recipe, "checkpoint": spec.checkpoint}
    return {**_embodiment_to_json(spec), "horizon": spec.horizon, **names, **_how(spec)}


def _how(spec: PolicySpec) -> dict[str, Any]:
    return {"inpaints": spec.inpaints, "resize": None if spec.resize is None else list(spec.resize)}


def _camera(camera: Camera) -> str:
    return f"{camera.name!r} {camera.height} x {camera.width}"


def _units(quantities: tuple[Quantity, ...]) -> str:
    return "[" + ", ".join(f"{quantity.name} [{quantity.unit}]" for quantity in quantities) + "]"
