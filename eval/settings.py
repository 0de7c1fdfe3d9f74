"""What one evaluation is: the keys of `configs/eval.yaml`, checked when built."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

from eval.latency import read_latency
from eval.spread import Spread
from policy_server.arrays import RAW
from policy_server.codecs import Codec
from policy_server.security import client_keys
from vla.api import InputError

SETTINGS = ("visual_matching", "variant_aggregation")
SCENES = ("official", "mixed")
STARTS = ("grid", "random")
POLICIES = ("served", "remote", "local", "expert", "random", "hold")
SCRIPTED = POLICIES[3:]
_NAMES = ("out", "model", "accel", "init", "device", "dtype")
_OPTIONAL_NAMES = (
    "endpoint",
    "keys",
    "server_key",
    "checkpoint",
    "dataset",
    "overlay",
    "robot_assets",
    "baseline",
    "dialect",
    "suite_python",
)
LOOPS = ("wait", "asynchronous", "real_time_chunking")
MARGIN = 0.03  # default success rate that a policy may lose and count as not worse
EXECUTE = 2  # default actions taken from each chunk


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
        ensemble: ask at every step and average what so many chunks say of it (`vla.chunking.AdaptiveEnsemble`); None:
            take actions from one chunk.
        out: folder of the results.
        timeout: [s] for one answer of a policy behind a wire.
        codec: how images travel over it: raw, png or jpeg.
        quality: of jpeg.
        resize: whether images are made the size that the policy reads before they are sent; refused for one that
            does not say how.
        keys: this client's secret key file, for `remote`; None: nothing is encrypted.
        server_key: the server's public key file, with `keys`.
        realtime: whether simulated time goes on while the policy thinks.
        loop: how the robot lives with that: a name of `eval.realtime.LOOPS`.
        latency_ms: of each answer in simulated time, see `eval.latency.read_latency`; None for the measured one.
        workers, max_batch, max_wait_ms, cluster, replicas: see `eval.spread.Spread`.
        baseline: folder of a finished run on the same starts, to compare with.
        margin: of a comparison with it, or of several recipes: largest loss of success rate that counts as none.
        dialect: set-up for another project's server at `endpoint`, see `eval.peers`; None: it is a cadence-serve.
        suite_python: interpreter that plays another suite's tasks, see `eval.suites`; None: this one.

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
    realtime: bool = False
    loop: str = "wait"
    latency_ms: float | str | None = None
    workers: int = 1
    max_batch: int | None = None
    max_wait_ms: float = 0.0
    cluster: str | None = None
    replicas: int | None = None
    baseline: str | None = None
    margin: float = MARGIN
    dialect: str | None = None
    suite_python: str | None = None
    ensemble: int | None = None

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
        for name in ("episodes", "execute", "threads", "ensemble"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), at_least=1)
        if not isinstance(self.video, bool):
            raise InputError(f"video must be true or false, got {self.video!r}")
        seconds = isinstance(self.timeout, (int, float)) and not isinstance(self.timeout, bool)
        if not seconds or not 0 < self.timeout < math.inf:
            raise InputError(f"timeout must be positive seconds, got {self.timeout!r}")
        if isinstance(self.margin, bool) or not isinstance(self.margin, float | int) or not 0 < self.margin < 1:
            raise InputError(f"margin must be a success rate between 0 and 1, got {self.margin!r}")
        self._check_wire()
        self._check_realtime()
        self._check_dialect()
        self._check_ensemble()
        if self.spread.max_batch is not None and self.policy != "served":
            raise InputError(f"max_batch={self.max_batch} needs policy=served, got policy={self.policy}")
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

    def _check_dialect(self) -> None:
        if self.dialect is None:
            return
        if self.policy != "remote" or not self.endpoint:
            raise InputError(f"dialect={self.dialect} needs policy=remote and an endpoint of another project's server")
        if self.codec != RAW or self.resize or self.keys is not None:
            raise InputError("codec, resize and keys are Cadence's own: leave them out with a dialect")

    def _check_ensemble(self) -> None:
        if self.ensemble is None:
            return
        if self.execute is not None or self.policy in SCRIPTED:
            raise InputError(
                f"ensemble={self.ensemble} asks a model at every step: leave out execute={self.execute}, and choose "
                f"policy={', '.join(POLICIES[:3])}; got policy={self.policy}"
            )
        if self.realtime and self.loop != LOOPS[1]:
            raise InputError(f"ensemble with realtime=true needs loop={LOOPS[1]}, got loop={self.loop}")

    def _check_realtime(self) -> None:
        if not isinstance(self.realtime, bool):
            raise InputError(f"realtime must be true or false, got {self.realtime!r}")
        _one_of("loop", self.loop, LOOPS)
        if not self.realtime and (self.latency_ms is not None or self.loop != LOOPS[0]):
            raise InputError(f"loop={self.loop} and latency_ms={self.latency_ms} need realtime=true")
        if isinstance(self.latency_ms, bool) or not isinstance(self.latency_ms, int | float | str | NoneType):
            raise InputError(f"latency_ms must be milliseconds, a file or null, got {self.latency_ms!r}")
        if self.realtime and self.latency_ms is None and self.spread.workers > 1:
            raise InputError(
                f"with workers={self.workers} a measured latency holds waiting for the other workers; "
                "measure with workers=1, or give latency_ms=<run folder>"
            )

    @property
    def spread(self) -> Spread:
        """On how many processes and machines it runs."""
        return Spread(self.workers, self.max_batch, self.max_wait_ms, self.cluster, self.replicas)

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
        return f"{codec}, of the size that the policy reads" if self.resize else codec

    def connection(self) -> dict[str, Any]:
        """How to talk to a policy server: arguments of `RemotePolicy` beside `timeout`.

        Raises:
            InputError: on a key file that is missing, damaged or open to others.
        """
        keys = None if self.keys is None or self.server_key is None else client_keys(self.keys, self.server_key)
        return {"codec": Codec(self.codec, self.quality), "resize": self.resize, "keys": keys}

    @property
    def rows(self) -> int:
        """Actions used of each chunk; a policy without a model answers one at a time."""
        return self.ensemble or self.execute or (1 if self.policy in SCRIPTED else EXECUTE)

    @property
    def has_model(self) -> bool:
        """Whether the model is chosen here, rather than by another's server or a script."""
        return self.policy in ("served", "local")

    def served(self) -> dict[str, Any]:
        """The keys that choose a model and how it runs."""
        names = ("model", "accel", "checkpoint", "dataset", "init", "device", "dtype", "threads")
        return {name: getattr(self, name) for name in names}

    def server(self, robot: str) -> dict[str, Any]:
        """The keys of `cadence-serve` for a server of our own, without those that are null."""
        spread = self.spread
        threads = spread.server_threads(self.threads, self.device)
        batching = {} if spread.alone else {"max_batch": spread.batch, "max_wait_ms": spread.max_wait_ms}
        chosen = {**self.served(), "threads": threads, **batching, "robot": robot}
        return {name: value for name, value in chosen.items() if value is not None}

    def asked(self) -> dict[str, Any]:
        """The keys that choose the policy; what is behind them is known only once it is open."""
        return {**self.served(), "endpoint": self.endpoint, "dialect": self.dialect}

    def identity(self) -> dict[str, Any]:
        """What every episode of one folder must share.

        Raises:
            InputError: if the file that `latency_ms` names cannot be used.
        """
        names = ["policy", "setting", "scene", "overlay", "robot_assets", "starts", "seed"] + [
            "device",
            "dtype",
        ] * self.has_model
        wire = {"images": self.images} if self.has_wire else {}
        latency = "measured" if self.latency_ms is None else self.latency_ms
        timing = {"loop": self.loop, "latency_ms": latency} if self.realtime else {}
        if self.realtime and isinstance(self.latency_ms, str):  # a file of the same name may hold another
            timing["latency_digest"] = read_latency(self.latency_ms).digest
        shared = {name: getattr(self, name) for name in names}
        averaged = {} if self.ensemble is None else {"ensemble": self.ensemble}
        return {**shared, "execute": self.rows, **averaged, **wire, "realtime": self.realtime, **timing}


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def _whole(name: str, value: object, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise InputError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
