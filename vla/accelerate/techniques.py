"""Techniques, found by looking: every file in a slot's folder with a `TECHNIQUE` is one, by the name of its file."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from vla.api import InputError

Plugs = Mapping[str, tuple["Technique", ...]]


@dataclass(frozen=True)
class Slot:
    """A place of a policy that a recipe can fill.

    Attributes:
        package: whose modules are the techniques.
        several: whether a recipe may name several, applied in order.
        default: what fills it if the recipe says nothing; None: nothing does.
    """

    package: str
    several: bool = False
    default: str | None = None


SLOTS = {  # in the order in which they apply
    "weights": Slot("vla.accelerate.weights", several=True),
    "tokens": Slot("vla.accelerate.tokens", several=True),
    "temporal": Slot("vla.accelerate.temporal"),
    "decoding": Slot("vla.decoding", default="autoregressive"),
    "action_cache": Slot("vla.accelerate.action_cache"),
    "execution": Slot("vla.accelerate.execution", default="eager"),
}


@dataclass(frozen=True)
class Technique:
    """Base of what fills a slot: its fields are its options, checked when built.

    Attributes:
        IDENTITY: options with which it changes nothing; None: there are none such.
        EXAMPLE: options with which it does something in a model of any size.
    """

    IDENTITY: ClassVar[Mapping[str, Any] | None] = {}
    EXAMPLE: ClassVar[Mapping[str, Any]] = {}
    slot: ClassVar[str]
    places: ClassVar[frozenset[str]] = frozenset()  # of an execution: the slots that it leaves room for

    @property
    def method(self) -> str:
        """Its name in a recipe: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def learns(self) -> bool:
        """Whether it takes something from a calibration."""
        return False

    def calibrated(self, model: Any, calibration: Any) -> "Technique":
        """The technique with what it takes from a calibration; itself if it takes nothing.

        Args:
            model: as loaded.
            calibration: a `vla.calibration.stored.Calibration` of the checkpoint; None: there is none.

        Raises:
            InputError: if it needs a calibration and there is none.
        """
        return self

    def unfit(self, model: Any) -> str | None:
        """Why it cannot be applied to a model; None if it can."""
        return None


def methods(slot: str) -> list[str]:
    """Names of all techniques of a slot."""
    package = importlib.import_module(SLOTS[slot].package)
    names = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    return sorted(name for name in names if hasattr(_module(slot, name), "TECHNIQUE"))


def summary(slot: str, method: str) -> str:
    """What a technique is: the first line of its file."""
    return str(_module(slot, method).__doc__).partition("\n")[0]


def plugs_of(recipe: str, values: Mapping[str, Any]) -> Plugs:
    """What fills every slot.

    Args:
        recipe: its name, for messages.
        values: slot -> the name of a method, or a mapping of `method` and its options, or a list of such where the
            slot takes several, or None.

    Raises:
        InputError: on an unknown slot, method or option, or an option outside its range.
    """
    if unknown := sorted(values.keys() - SLOTS.keys()):
        raise InputError(f"recipe {recipe}: unknown slots {unknown}; allowed: {', '.join(SLOTS)}")
    return {name: _fill(recipe, name, values.get(name)) for name in SLOTS}


def check_fit(recipe: str, plugs: Plugs, model: Any) -> None:
    """Refuse techniques that do not apply to a model, or that its execution has no place for.

    Raises:
        InputError: naming the technique and the reason.
    """
    for slot, techniques in plugs.items():
        for technique in techniques:
            if reason := technique.unfit(model):
                raise InputError(f"recipe {recipe}: {slot}={technique.method} does not apply to this model: {reason}")
    (execution,) = plugs["execution"]
    homeless = [
        slot
        for slot, filled in plugs.items()
        if filled and slot not in execution.places and not _is_default(slot, filled)
    ]
    if homeless:
        raise InputError(
            f"recipe {recipe}: execution={execution.method} has no place for {', '.join(homeless)}, "
            f"only for {', '.join(sorted(execution.places))}; another execution: {', '.join(methods('execution'))}"
        )


def _is_default(slot: str, filled: tuple[Technique, ...]) -> bool:
    default = SLOTS[slot].default
    return slot == "execution" or [technique.method for technique in filled] == ([default] if default else [])


def _fill(recipe: str, name: str, value: Any) -> tuple[Technique, ...]:
    slot = SLOTS[name]
    if value is None:
        value = slot.default
    listed = [] if value is None else list(value) if _is_list(value) else [value]
    if _is_list(value) and not slot.several:
        raise InputError(f"recipe {recipe}: {name} takes one method, got a list of {len(listed)}")
    return tuple(_build(recipe, name, each) for each in listed)


def _build(recipe: str, slot: str, value: Any) -> Technique:
    options = dict(value) if isinstance(value, Mapping) else {"method": value}
    method = options.pop("method", None)
    if method not in methods(slot):
        allowed = ", ".join(methods(slot)) or "none is there"
        raise InputError(f"recipe {recipe}: unknown {slot} method {method!r}; allowed: {allowed}")
    technique = _module(slot, method).TECHNIQUE
    known = [field.name for field in fields(technique)]
    if unknown := sorted(options.keys() - set(known)):
        raise InputError(
            f"recipe {recipe}: {slot}={method} has no options {unknown}; allowed: {', '.join(known) or 'none'}"
        )
    return technique(**options)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _module(slot: str, name: str) -> Any:
    return importlib.import_module(f"{SLOTS[slot].package}.{name}")
