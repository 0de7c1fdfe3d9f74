"""Finds a dialect by its set-up: a file of `configs/dialects/`, or one's own YAML file in the same form.

A dialect is a module `policy_server/dialects/<name>.py` that defines `DIALECT`, a class that takes a `Setup`.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_server import dialects, naming
from policy_server.checks import is_number, show
from policy_server.naming import Naming
from policy_server.peers import Dialect
from vla.api import InputError, PolicySpec

INSTALL = "pip install 'cadence-vla[server]'"
COMMON = ("dialect", "cameras", "state", "actions", "units", "instruction", "deadline_ms")


@dataclass(frozen=True)
class Setup:
    """What a dialect is made from.

    Attributes:
        spec: of the policy.
        naming: what the clients call things.
        deadline_ms: that the server gives itself for each request of these clients, who give none; None is forever.
        insecure: consent to an address that other machines can reach.
        options: the dialect's own keys; its class lists them, with their defaults, as `OPTIONS`.
    """

    spec: PolicySpec
    naming: Naming
    deadline_ms: float | None
    insecure: bool
    options: Mapping[str, Any]

    def flag(self, key: str) -> bool:
        """An option that is true or false.

        Raises:
            InputError: if it is neither.
        """
        return self.choice(key, (True, False))

    def choice(self, key: str, allowed: Sequence[Any]) -> Any:
        """An option that has one of these values.

        Raises:
            InputError: if it has not.
        """
        value = self.options[key]
        if not any(value is each or (isinstance(value, str) and value == each) for each in allowed):
            raise InputError(f"{key} must be one of {list(allowed)}, got {value!r}")
        return value

    def table(self, key: str) -> dict[str, Any]:
        """An option that maps names to values; null is an empty one.

        Raises:
            InputError: if it is something else.
        """
        value = self.options[key]
        if value is not None and not (isinstance(value, Mapping) and all(isinstance(name, str) for name in value)):
            raise InputError(f"{key} must map names to values, got {value!r}")
        return dict(value or {})


def kinds() -> list[str]:
    """The dialects there are."""
    return sorted(module.name for module in pkgutil.iter_modules(dialects.__path__) if module.name[0] != "_")


def setups() -> list[str]:
    """The set-ups that are shipped."""
    return sorted(path.stem for path in _directory().glob("*.yaml"))


def load(setup: str, spec: PolicySpec, insecure: bool = False) -> Dialect:
    """The dialect of a set-up.

    Args:
        setup: its name, or the path of a file that ends with `.yaml`.
        spec: of the policy that will be served.
        insecure: consent to an address that other machines can reach although nothing is encrypted.

    Raises:
        InputError: on a file that is missing or says what nobody reads, or if a library is not installed.
    """
    try:
        return build(_read(setup), spec, insecure)
    except InputError as error:
        raise InputError(f"dialect {setup}: {error}") from None


def check(setup: str, insecure: bool = False) -> None:
    """Refuse a set-up, before the policy is loaded, for what can be refused without it.

    Raises:
        InputError: as `load`, and for example on a port that is taken.
    """
    try:
        made, options = _chosen(_read(setup))
        made.check(options, insecure)
    except InputError as error:
        raise InputError(f"dialect {setup}: {error}") from None


def build(values: Mapping[str, Any], spec: PolicySpec, insecure: bool = False) -> Dialect:
    """The dialect with the values of a set-up file.

    Raises:
        InputError: on values that nobody reads, or if a library is not installed.
    """
    made, options = _chosen(values)
    setup = Setup(
        spec,
        _naming(values, spec, made.NAMES),
        _deadline(values.get("deadline_ms")),
        insecure,
        options,
    )
    return made(setup)


@dataclass(frozen=True)
class Names:
    """What the servers of a dialect call things, for those who ask them.

    Attributes:
        dialect: its name.
        naming: the same as for its clients.
        options: the dialect's own keys with their defaults.
    """

    dialect: str
    naming: Naming
    options: Mapping[str, Any]


def read_names(setup: str, spec: PolicySpec) -> Names:
    """What a set-up says to someone who asks a server of its dialect.

    Args:
        setup: its name, or the path of a file that ends with `.yaml`.
        spec: of the robot: its cameras, state and actions are named in the set-up.

    Raises:
        InputError: as `load`.
    """
    try:
        values = _read(setup)
        made: Any = build(values, spec, insecure=True)  # refuses what nobody reads; nothing is opened
        options = {key: values.get(key, default) for key, default in type(made).OPTIONS.items()}
        return Names(str(values["dialect"]), made.setup.naming, options)
    except InputError as error:
        raise InputError(f"dialect {setup}: {error}") from None


def _chosen(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The class of a set-up's dialect, and its own keys with their values."""
    kind = values.get("dialect")
    if kind not in kinds():
        raise InputError(f"dialect must be one of {kinds()}, got {kind!r}")
    made = _class(str(kind))
    if unknown := sorted(set(values) - {*COMMON, *made.OPTIONS}):
        raise InputError(f"unknown key {', '.join(unknown)}; allowed: {', '.join([*COMMON, *made.OPTIONS])}")
    return made, {**made.OPTIONS, **{key: values[key] for key in made.OPTIONS if key in values}}


def _class(kind: str) -> Any:
    try:
        return importlib.import_module(f"{dialects.__name__}.{kind}").DIALECT
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: {INSTALL}") from None


def _read(setup: str) -> Mapping[str, Any]:
    import yaml  # servers without dialects do without

    path = Path(setup) if setup.endswith((".yaml", ".yml")) else _directory() / f"{setup}.yaml"
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"there is none of this name; there are {', '.join(setups())}, or a .yaml file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must map keys to values, it holds {show(values)}")
    return {str(key): value for key, value in values.items()}


def _naming(values: Mapping[str, Any], spec: PolicySpec, defaults: naming.Defaults) -> Naming:
    cameras, words = values.get("cameras"), values.get("instruction")
    if cameras is not None and not (isinstance(cameras, dict) and _are_texts(cameras.values())):
        raise InputError(f"cameras must map the policy's cameras to names, got {cameras!r}")
    if words is not None and not (isinstance(words, list) and words and _are_texts(words)):
        raise InputError(f"instruction must be a list of names, got {words!r}")
    lists = {key: _lists(key, values.get(key)) for key in ("state", "actions")}
    return naming.naming(spec, defaults, cameras, **lists, instruction=words, units=_units(values.get("units")))


def _units(value: Any) -> Mapping[str, Any] | None:
    tables = isinstance(value, dict) and set(value) <= {"state", "actions"}
    if value is not None and not (tables and all(isinstance(table, dict) for table in value.values())):
        raise InputError(f"units must map state and actions to the policy's names and factors, got {value!r}")
    return value


def _lists(key: str, value: Any) -> Mapping[str, Sequence[str]] | None:
    lists = isinstance(value, dict) and all(isinstance(item, list) and _are_texts(item) for item in value.values())
    if value is not None and not lists:
        raise InputError(f"{key} must map names to lists of the policy's names, got {value!r}")
    return value


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _deadline(value: object) -> float | None:
    if value is not None and (not isinstance(value, int | float) or not is_number(value) or value <= 0):
        raise InputError(f"deadline_ms must be null or a positive number, got {value!r}")
    return value


def _directory() -> Path:
    """Where set-ups are: the installed `cadence_configs`, which is the source tree's `configs/`."""
    found = importlib.util.find_spec("cadence_configs")
    if found is None or not found.submodule_search_locations:
        raise InputError("the set-ups are not installed; install this project with pip (make setup)")
    return Path(next(iter(found.submodule_search_locations))) / "dialects"
