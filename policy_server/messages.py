"""What each kind of message says, as the types of `vla.api`: requests, replies and back (numpy only).

The layout is specified in `policy_server.wire`; every function here is pure.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from policy_server.wire import Message, WireError, is_integer, is_name, is_number
from vla.api import ActionChunk, Camera, InputError, Observation, PolicySpec, Quantity

IMAGE = "image/"
MAX_ERROR_TEXT = 4000
T = TypeVar("T")


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
    plain = _keys("embodiment", announced, "cameras", "state", "actions", "period")
    return Embodiment(
        cameras=_cameras(plain["cameras"]),
        state=_quantities("state", plain["state"]),
        actions=_quantities("actions", plain["actions"]),
        period=_positive("period", plain["period"]),
    )


def welcome(seq: int, spec: PolicySpec) -> Message:
    """The reply to hello."""
    return Message("hello", seq, body={"spec": _spec_to_json(spec), "spec_id": spec_id(spec)})


def read_welcome(message: Message) -> tuple[PolicySpec, str]:
    """The server's PolicySpec and its identity.

    Raises:
        WireError: on a body that is not the specification's.
    """
    body = _body(message, "spec", "spec_id")
    keys = ("cameras", "state", "actions", "horizon", "period", "model", "recipe", "checkpoint")
    plain = _keys("spec", body["spec"], *keys)
    parts: dict[str, Any] = {
        "cameras": _cameras(plain["cameras"]),
        "state": _quantities("state", plain["state"]),
        "actions": _quantities("actions", plain["actions"]),
        "horizon": plain["horizon"],
        "period": _positive("period", plain["period"]),
        **{name: _text(name, plain[name]) for name in ("model", "recipe", "checkpoint")},
    }
    spec = _allowed(lambda: PolicySpec(**parts))
    return spec, _text("spec_id", body["spec_id"])


@lru_cache(maxsize=16)
def spec_id(spec: PolicySpec) -> str:
    """Sixteen hex digits that change when anything in the spec changes."""
    return hashlib.sha256(json.dumps(_spec_to_json(spec), sort_keys=True).encode()).hexdigest()[:16]


def infer(seq: int, observation: Observation, deadline_ms: float | None, agreed: str | None) -> Message:
    """Ask for the next actions; `agreed` is the `spec_id` that hello answered."""
    arrays: dict[str, Any] = {IMAGE + name: image for name, image in observation.images.items()}
    if observation.state is not None:
        arrays["state"] = observation.state
    body = {"instruction": observation.instruction, "step": observation.step, "time": observation.time}
    body["spec_id"] = agreed
    return Message("infer", seq, observation.session, deadline_ms, body=body, arrays=arrays)


def read_infer(message: Message, spec: PolicySpec) -> Observation:
    """The observation in a request, checked against the spec of the policy that will use it.

    Raises:
        WireError: on a body that is not the specification's, or a `spec_id` of another policy.
        InputError: on an image or state with a wrong dtype or shape.
    """
    body = _body(message, "instruction", "step", "time", "spec_id")
    agreed, current = body["spec_id"], spec_id(spec)
    if agreed is not None and agreed != current:
        text = (
            f"the client agreed on spec {str(agreed)[:40]!a}, this server serves {spec.model!r} with spec {current!r}"
        )
        raise WireError(text, type="spec", hint="the server was restarted with another policy: connect again")
    if not is_integer(body["step"]) or not is_number(body["time"]):
        raise WireError(f"step and time must be numbers, got {body['step']!r} and {body['time']!r}")
    unknown = [name for name in message.arrays if name != "state" and not name.startswith(IMAGE)]
    if unknown:
        raise InputError(f"an observation has arrays {IMAGE + '<camera>'!r} and 'state', got {unknown}")
    observation = Observation(
        images={name[len(IMAGE) :]: array for name, array in message.arrays.items() if name.startswith(IMAGE)},
        instruction=body["instruction"],
        state=message.arrays.get("state"),
        session=message.session,
        step=body["step"],
        time=body["time"],
    )
    spec.check(observation)
    return observation


def actions(request: Message, chunk: ActionChunk, timing: Mapping[str, float]) -> Message:
    """The reply to infer; `timing` is added to the chunk's own."""
    merged = {stage: float(value) for stage, value in {**chunk.timing, **timing}.items()}
    body = {"period": float(chunk.period)}
    arrays = {"actions": chunk.actions}
    return Message("infer", request.seq, request.session, timing=merged, body=body, arrays=arrays)


def read_actions(message: Message, spec: PolicySpec) -> ActionChunk:
    """The chunk in a reply, checked against the spec; `actions` is the receiver's own copy.

    Raises:
        WireError: on a reply that is not the specification's or does not fit the spec.
    """
    got = message.arrays.get("actions", np.empty(0, np.float32))
    needed = (spec.horizon, len(spec.actions))
    if got.dtype != np.float32 or got.shape != needed:
        raise WireError(f"actions must be float32 {needed}, the server answered {got.dtype} {got.shape}")
    return ActionChunk(got.copy(), _positive("period", _body(message, "period")["period"]), message.timing)


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
    return _text("type", body["type"]), str(body["message"]), str(body["hint"])


def empty(message: Message) -> None:
    """Check that this message says nothing beyond its kind.

    Raises:
        WireError: if it has a body or arrays.
    """
    _body(message)
    if message.arrays:
        raise WireError(f"{message.kind} takes no arrays, got {list(message.arrays)}")


def _body(message: Message, *keys: str) -> Mapping[str, Any]:
    return _keys(f"the body of {message.kind}", message.body, *keys)


def _keys(what: str, value: object, *keys: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != set(keys):
        got = sorted(value) if isinstance(value, Mapping) else type(value).__name__
        raise WireError(f"{what} needs exactly the keys {list(keys)}, got {str(got)[:200]!a}")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise WireError(f"{name} must be text of at most 256 characters, got {str(value)[:200]!a}")
    return value


def _positive(name: str, value: object) -> float:
    if not is_number(value) or not value > 0:  # pyright: ignore[reportOperatorIssue]
        raise WireError(f"{name} must be positive, got {str(value)[:200]!a}")
    return float(value)  # pyright: ignore[reportArgumentType]


def _rows(name: str, value: object, *types: type) -> list[list[Any]]:
    allowed = isinstance(value, list) and all(isinstance(row, list) and [*map(type, row)] == [*types] for row in value)
    if not allowed:
        raise WireError(f"{name} must be a list of [{', '.join(t.__name__ for t in types)}], got {str(value)[:200]!a}")
    return value  # pyright: ignore[reportReturnType]


def _allowed(build: Callable[[], T]) -> T:
    """What `build` makes, its refusal turned into one of the wire."""
    try:
        return build()
    except InputError as error:
        raise WireError(str(error)) from None


def _cameras(value: object) -> tuple[Camera, ...]:
    rows = _rows("cameras", value, str, int, int)
    return _allowed(lambda: tuple(Camera(*row) for row in rows))


def _quantities(name: str, value: object) -> tuple[Quantity, ...]:
    return tuple(Quantity(*row) for row in _rows(name, value, str, str))


def _embodiment_to_json(side: Embodiment | PolicySpec) -> dict[str, Any]:
    return {
        "cameras": [[camera.name, camera.height, camera.width] for camera in side.cameras],
        "state": [[quantity.name, quantity.unit] for quantity in side.state],
        "actions": [[quantity.name, quantity.unit] for quantity in side.actions],
        "period": float(side.period),
    }


def _spec_to_json(spec: PolicySpec) -> dict[str, Any]:
    plain = {"horizon": spec.horizon, "model": spec.model, "recipe": spec.recipe, "checkpoint": spec.checkpoint}
    return {**_embodiment_to_json(spec), **plain}


def _camera(camera: Camera) -> str:
    return f"{camera.name!r} {camera.height} x {camera.width}"


def _units(quantities: tuple[Quantity, ...]) -> str:
    return "[" + ", ".join(f"{quantity.name} [{quantity.unit}]" for quantity in quantities) + "]"
