"""What another client calls what a policy sees and does: its names and shapes to an observation, and back (numpy only).

A client may send more than the policy needs; nothing that it needs may be missing, and nothing is guessed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policy_server.arrays import IMAGE
from policy_server.checks import WireError, brief, is_number, show
from vla.api import InputError, PolicySpec

Places = Mapping[str, tuple[int, ...]]
Factors = Mapping[str, "float | Sequence[float]"]  # name -> factor, or factor and offset


@dataclass(frozen=True)
class Units:
    """What a client's numbers are in terms of the policy's: `theirs = ours * scale + offset`.

    Attributes:
        scale: (n,) of each of the policy's quantities; not 0.
        offset: (n,)
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    def theirs(self, ours: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., n)"""
        return (ours * np.array(self.scale) + np.array(self.offset)).astype(np.float32)

    def ours(self, theirs: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., n)"""
        return ((theirs - np.array(self.offset)) / np.array(self.scale)).astype(np.float32)


@dataclass(frozen=True)
class Defaults:
    """What a dialect's clients call things where a set-up does not say.

    Attributes:
        camera: holds `{}` for the policy's name of the camera.
        state: of the whole state.
        actions: of all actions.
        instruction: names under which an instruction may come, first the one that clients are told.
    """

    camera: str
    state: str
    actions: str
    instruction: tuple[str, ...]


@dataclass(frozen=True)
class Naming:
    """What a client calls things.

    Attributes:
        cameras: the policy's camera -> the client's name.
        state: the client's name -> which numbers of the policy's state it holds.
        actions: the client's name -> which columns of the policy's actions it holds.
        instruction: names under which an instruction may come.
        state_units: what the client's numbers of the state are; None: the policy's.
        action_units: the same, of action columns.
    """

    cameras: Mapping[str, str]
    state: Places
    actions: Places
    instruction: tuple[str, ...]
    state_units: Units | None = None
    action_units: Units | None = None

    def arrays(self, sent: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """The arrays of `policy_server.wire`'s infer, from what a client sent under its own names.

        Args:
            sent: name -> array; images (..., height, width, 3) and numbers (..., n) whose leading sizes are all 1.

        Raises:
            WireError: `input`, naming what is missing or has another shape.
        """
        found = {IMAGE + camera: image(name, _get(sent, name)) for camera, name in self.cameras.items()}
        if self.state:
            found["state"] = self._state(sent)
        return found

    def instruction_in(self, sent: Mapping[str, Any]) -> str:
        """The instruction, also where it comes as a list with one text.

        Raises:
            WireError: `input`, if there is none, or more than one.
        """
        value = next((sent[name] for name in self.instruction if name in sent), None)
        while isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if not isinstance(value, str):
            raise _refused(f"the instruction is one text under {list(self.instruction)}, got {brief(value)}", sent)
        return value

    def split(self, actions: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """(horizon, A) actions as the client's name -> (horizon, n), in its units."""
        if self.action_units is not None:
            actions = self.action_units.theirs(actions)
        return {name: np.ascontiguousarray(actions[:, places]) for name, places in self.actions.items()}

    def numbers(self, state: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """(S,) of the policy as the client's name -> (n,), in its units: what `arrays` reads."""
        if self.state_units is not None:
            state = self.state_units.theirs(state)
        return {name: state[list(places)] for name, places in self.state.items()}

    def _state(self, sent: Mapping[str, Any]) -> NDArray[np.float32]:
        state = np.zeros(sum(map(len, self.state.values())), np.float32)
        for name, places in self.state.items():
            state[list(places)] = _numbers(name, _get(sent, name), len(places))
        return state if self.state_units is None else self.state_units.ours(state)


def image(name: str, value: Any) -> NDArray[Any]:
    """(height, width, channels) of an image with leading sizes of 1.

    Raises:
        WireError: `input`, on anything else.
    """
    if not isinstance(value, np.ndarray) or value.ndim < 3 or math.prod(value.shape[:-3]) != 1:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise WireError(f"{name} must be one image of one robot, (..., height, width, 3), got {got}", "input")
    return value.reshape(value.shape[-3:])


def naming(
    spec: PolicySpec,
    defaults: Defaults,
    cameras: Mapping[str, str] | None = None,
    state: Mapping[str, Sequence[str]] | None = None,
    actions: Mapping[str, Sequence[str]] | None = None,
    instruction: Sequence[str] | None = None,
    units: Mapping[str, Factors] | None = None,
) -> Naming:
    """The Naming of a policy, after a set-up's words and the dialect's own.

    Args:
        spec: of the policy.
        defaults: the dialect's.
        cameras: the policy's camera -> the client's name.
        state: the client's name -> the policy's names of the numbers that it holds.
        actions: the same, of action columns.
        instruction: names under which an instruction may come.
        units: `state`, `actions` -> the policy's names -> factor, or factor and offset: the client's numbers are the
            policy's times the factor plus the offset.

    Raises:
        InputError: if they leave something out, name something twice or something that the policy does not have.
    """
    needed = [camera.name for camera in spec.cameras]
    if cameras is not None and sorted(cameras) != sorted(needed):
        raise InputError(f"cameras must name each of the policy's cameras {needed}, got {sorted(cameras)}")
    states, columns = ([quantity.name for quantity in part] for part in (spec.state, spec.actions))
    return Naming(
        {camera: (cameras[camera] if cameras is not None else defaults.camera.format(camera)) for camera in needed},
        _places("state", state, states, defaults.state),
        _places("actions", actions, columns, defaults.actions),
        tuple(instruction) if instruction is not None else defaults.instruction,
        _units("units.state", (units or {}).get("state"), states),
        _units("units.actions", (units or {}).get("actions"), columns),
    )


def _places(what: str, given: Mapping[str, Sequence[str]] | None, known: list[str], default: str) -> Places:
    if given is None:
        return {default: tuple(range(len(known)))} if known else {}
    named = [name for names in given.values() for name in names]
    if sorted(named) != sorted(known):
        raise InputError(f"{what} must name each of the policy's {known} once, got {named}")
    return {key: tuple(map(known.index, names)) for key, names in given.items()}


def _units(what: str, given: Factors | None, known: list[str]) -> Units | None:
    if not given:
        return None
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"{what} must name some of the policy's {known}, got {unknown[0]!r}")
    scale, offset = zip(*(_unit(what, name, given.get(name, 1.0)) for name in known), strict=True)
    return Units(scale, offset)


def _unit(what: str, name: str, value: Any) -> tuple[float, float]:
    pair: Any = value if isinstance(value, list | tuple) and len(value) == 2 else (value, 0.0)
    factor, offset = pair
    if not is_number(factor) or not is_number(offset) or factor == 0:
        raise InputError(f"{what} must give {name} a factor other than 0, or [factor, offset]; got {value!r}")
    return float(factor), float(offset)


def _get(sent: Mapping[str, Any], name: str) -> Any:
    """What is called so, or nested so: `images/top` is also `{"images": {"top": ...}}`."""
    head, slash, tail = name.partition("/")
    if name in sent:
        return sent[name]
    if slash and isinstance(sent.get(head), Mapping):
        return _get(sent[head], tail)
    raise _refused(f"{name} is missing", sent)


def _numbers(name: str, value: Any, count: int) -> NDArray[np.float32]:
    numeric = isinstance(value, int | float | np.ndarray | np.generic) and np.asarray(value).dtype.kind in "biuf"
    shape = np.shape(value) if numeric else ()
    if not numeric or math.prod(shape) != count or (shape and shape[-1] != count):
        got = f"{np.asarray(value).dtype} {shape}" if numeric else type(value).__name__
        raise WireError(f"{name} must be {count} number(s) of one robot at one time, got {got}", "input")
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused as not finite
        return np.asarray(value).reshape(count).astype(np.float32)


def _refused(text: str, sent: Iterable[str]) -> WireError:
    return WireError(f"{text}; the observation has {show(sorted(map(str, sent)))}", "input")
