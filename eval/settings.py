"""What one evaluation is: the keys of `configs/eval.yaml`, checked when built."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from eval.rollout import Episode
from policy_server.arrays import RAW
from policy_server.codecs import Codec
from policy_server.security import client_keys
from vla.api import InputError

SETTINGS = ("visual_matching", "variant_aggregation")
SCENES = ("official", "mixed")
STARTS = ("grid", "random")
GROUPS = ("widowx", "google_robot")
POLICIES = ("served", "remote", "local", "expert", "random", "hold")
SCRIPTED = POLICIES[3:]
_NAMES = ("out", "model", "accel", "init", "device", "dtype")
_OPTIONAL_NAMES = ("endpoint", "keys", "server_key", "checkpoint", "dataset", "overlay", "robot_assets")
EXECUTE = 2  # default actions taken from each chunk
RANDOM_EPISODES = 100  # default number of fresh starts: a 95% interval of +-10 points at worst


@dataclass(frozen=True)
class Settings:
    """One evaluation.

    Attributes:
        tasks: task names, or `all`, or all of a robot: `widowx`, `google_robot`.
        policy: served, remote, local, expert, random or hold.
        setting: `visual_matching` or `variant_aggregation`.
        variants: names of visual variants; None for all that SIMPLER runs for a task in the setting.
        scene: `official`, or `mixed` with the objects and targets of other tasks present.
        overlay: photograph behind robot and objects under visual matching; None for the one that is drawn.
        robot_assets: checkout of MuJoCo Menagerie whose meshes replace our own robots.
        episodes: per task and variant; None for every official start, or RANDOM_EPISODES fresh ones.
        starts: `grid` (official starts) or `random` (fresh ones from `seed`).
        seed: of the run; every episode derives its own from it.
        execute: actions taken from each chunk before the policy is asked again; None for the default.
        out: folder of the results.
        timeout: [s] for one answer of a policy behind a wire.
        codec: how images travel over it: raw, png or jpeg.
        quality: of jpeg.
        resize: whether images are made the size that the policy reads before they are sent.
        keys: this client's secret key file, for `remote`; None: nothing is encrypted.
        server_key: the server's public key file, with `keys`.

    Raises:
        InputError: naming the key, what came and what is allowed.
    """

    tasks: tuple[str, ...]
    policy: str
    setting: str
    variants: tuple[str, ...] | None
    scene: str
    overlay: str | None
    robot_assets: str | None
    starts: str
    episodes: int | None
    seed: int
    execute: int | None
    out: str
    video: bool
    timeout: float
    codec: str
    quality: int
    resize: bool
    keys: str | None
    server_key: str | None
    endpoint: str | None
    model: str
    accel: str
    checkpoint: str | None
    dataset: str | None
    init: str
    device: str
    dtype: str
    threads: int | None

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Settings":
        """Build from the values of the configuration file and the command line."""
        tasks = config["tasks"]
        variants = config["variants"]
        if variants is not None:
            variants = tuple(variants) if isinstance(variants, list) else (variants,)
        return cls(**{**config, "tasks": tuple(tasks) if isinstance(tasks, list) else (tasks,), "variants": variants})

    def __post_init__(self) -> None:
        if not all(isinstance(task, str) for task in self.tasks):
            raise InputError(f"tasks must be a task name or a list of them, got {list(self.tasks)!r}")
        for name in _NAMES:
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} must be one name, got {getattr(self, name)!r}")
        for name in _OPTIONAL_NAMES:
            if not isinstance(getattr(self, name), (str, NoneType)):
                raise InputError(f"{name} must be one name or null, got {getattr(self, name)!r}")
        _one_of("policy", self.policy, POLICIES)
        _one_of("setting", self.setting, SETTINGS)
        _one_of("scene", self.scene, SCENES)
        _one_of("starts", self.starts, STARTS)
        if self.scene == "mixed" and self.starts == "grid":
            raise InputError("scene=mixed has no official starts; add starts=random")
        _whole("seed", self.seed, at_least=0)
        for name in ("episodes", "execute", "threads"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), at_least=1)
        if not isinstance(self.video, bool):
            raise InputError(f"video must be true or false, got {self.video!r}")
        seconds = isinstance(self.timeout, (int, float)) and not isinstance(self.timeout, bool)
        if not seconds or not 0 < self.timeout < math.inf:
            raise InputError(f"timeout must be positive seconds, got {self.timeout!r}")
        self._check_wire()
        if self.endpoint and self.policy != "remote":
            raise InputError(f"endpoint={self.endpoint} needs policy=remote, got policy={self.policy}")

    def _check_wire(self) -> None:
        Codec(self.codec, self.quality)  # raises
        if not isinstance(self.resize, bool):
            raise InputError(f"resize must be true or false, got {self.resize!r}")
        if (self.codec != RAW or self.resize) and not self.has_wire:
            raise InputError(f"codec and resize need policy=served or remote, got policy={self.policy}")
        if (self.keys is None) != (self.server_key is None):
            raise InputError(
                "keys=<this client's secret key file> and server_key=<the server's public one> go together"
            )
        if self.keys is not None and self.policy != "remote":
            raise InputError(f"keys={self.keys} needs policy=remote, got policy={self.policy}")

    @property
    def has_wire(self) -> bool:
        """Whether observations travel to a policy server."""
        return self.policy in ("served", "remote")

    @property
    def images(self) -> str:
        """How images reached the policy, for the report; "" if not over a wire."""
        if not self.has_wire:
            return ""
        codec = f"jpeg, quality {self.quality}" if self.codec == "jpeg" else self.codec
        return f"{codec}, resized by the client" if self.resize else codec

    def connection(self) -> dict[str, Any]:
        """How to talk to a policy server: arguments of `RemotePolicy` beside `timeout`.

        Raises:
            InputError: on a key file that is missing, damaged or open to others.
        """
        keys = None if self.keys is None or self.server_key is None else client_keys(self.keys, self.server_key)
        return {"codec": Codec(self.codec, self.quality), "resize": self.resize, "keys": keys}

    @property
    def rows(self) -> int:
        """Actions taken from each chunk; a policy without a model answers one at a time."""
        return self.execute or (1 if self.policy in SCRIPTED else EXECUTE)

    @property
    def has_model(self) -> bool:
        """Whether the model is chosen here, rather than by another's server or a script."""
        return self.policy in ("served", "local")

    def served(self) -> dict[str, Any]:
        """The keys that choose a model and how it runs."""
        names = ("model", "accel", "checkpoint", "dataset", "init", "device", "dtype", "threads")
        return {name: getattr(self, name) for name in names}

    def asked(self) -> dict[str, Any]:
        """The keys that choose the policy; what is behind them is known only once it is open."""
        return {**self.served(), "endpoint": self.endpoint}

    def identity(self) -> dict[str, Any]:
        """What every episode of one folder must share."""
        names = ["policy", "setting", "scene", "overlay", "robot_assets", "starts", "seed"] + [
            "device",
            "dtype",
        ] * self.has_model
        wire = {"images": self.images} if self.has_wire else {}
        return {**{name: getattr(self, name) for name in names}, "execute": self.rows, **wire}


def plan(
    settings: Settings,
    known: Sequence[str],
    grid_size: Callable[[str], int],
    suite: Callable[[str, str], Sequence[str]],
) -> list[Episode]:
    """Every episode this evaluation asks for.

    Args:
        known: all task names.
        grid_size: task name -> number of official starts.
        suite: task name, setting -> the variants that belong to both.

    Raises:
        InputError: on an unknown task, or more episodes than there are official starts.
    """
    episodes: list[Episode] = []
    for task in resolve(settings.tasks, known):
        count = settings.episodes or (grid_size(task) if settings.starts == "grid" else RANDOM_EPISODES)
        if settings.starts == "grid" and count > grid_size(task):
            raise InputError(
                f"episodes={count}, but {task} has {grid_size(task)} official starts; use starts=random for more"
            )
        for variant in settings.variants or suite(task, settings.setting):
            common = (settings.setting, settings.starts, settings.seed, variant, settings.scene)
            episodes += [Episode(task, number, *common) for number in range(count)]
    return episodes


def resolve(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Task names in the order asked for, each once; `all` and a robot's name stand for every task they cover.

    Raises:
        InputError: on a name that covers no task, listing what is allowed.
    """
    chosen: dict[str, None] = {}
    for name in names:
        covered = [task for task in known if name in ("all", task) or (name in GROUPS and task.startswith(f"{name}_"))]
        if not covered:
            raise InputError(f"unknown task {name!r}; allowed: {', '.join((*known, *GROUPS, 'all'))}")
        chosen.update(dict.fromkeys(covered))
    if not chosen:
        raise InputError(f"tasks is empty; allowed: {', '.join((*known, *GROUPS, 'all'))}")
    return list(chosen)


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def _whole(name: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise InputError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
