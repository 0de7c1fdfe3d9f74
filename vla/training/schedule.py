"""How to train: phases of growing image size, learning rates, and what a continued run must share with its past."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from vla.api import InputError
from vla.training.checks import require_kind, require_number, require_whole
from vla.training.optimizer import cosine
from vla.training.state import differing

WARMUP_STEPS = 100


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one image size.

    Attributes:
        image_size: [px] images are shrunk to; the last phase has the model's own.
        samples: frames to train on.
        batch: frames in a step.
        learning_rate, final_learning_rate: at the beginning and at the end of the phase.
    """

    image_size: int
    samples: int
    batch: int
    learning_rate: float
    final_learning_rate: float

    def __post_init__(self) -> None:
        for name in ("image_size", "samples", "batch"):
            require_whole(f"a phase's {name}", getattr(self, name), 1)
        for name in ("learning_rate", "final_learning_rate"):
            require_number(f"a phase's {name}", getattr(self, name))
        if self.samples % self.batch:
            raise InputError(f"a phase's samples must be a multiple of batch, got {self}")
        if self.final_learning_rate > self.learning_rate:
            raise InputError(f"a phase's learning rate must fall from learning_rate to final_learning_rate, got {self}")

    @property
    def steps(self) -> int:
        return self.samples // self.batch


@dataclass(frozen=True)
class Cloning:
    """How to train.

    Attributes:
        phases: in order.
        draws: noises per frame in the diffusion loss.
        keypoint_weight: of the auxiliary loss.
        average_decay: of the average of the weights that is evaluated and shipped.
        checkpoint_minutes: between saves of the state.
        validate_every: steps between validations.
        seed: of everything.
        bf16: compute in bfloat16 with float32 master weights.
    """

    phases: tuple[Phase, ...]
    draws: int
    keypoint_weight: float
    average_decay: float
    checkpoint_minutes: float
    validate_every: int
    seed: int
    bf16: bool

    def __post_init__(self) -> None:
        if not self.phases:
            raise InputError("phases must not be empty")
        for name, least in (("draws", 1), ("validate_every", 1), ("seed", 0)):
            require_whole(name, getattr(self, name), least)
        require_number("keypoint_weight", self.keypoint_weight)
        require_number("average_decay", self.average_decay, below=1)
        require_number("checkpoint_minutes", self.checkpoint_minutes)
        require_kind("bf16", self.bf16, bool, "true or false")

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, int, float]:
        """The phase of a step, the number of its first sample within the run, and its learning rate."""
        samples = 0
        first = 0
        for phase in self.phases:
            if step < first + phase.steps:
                rate = cosine((step - first) / phase.steps, phase.learning_rate, phase.final_learning_rate)
                warm = min(1.0, (step + 1) / WARMUP_STEPS)
                return phase, samples + (step - first) * phase.batch, rate * warm
            first += phase.steps
            samples += phase.samples
        raise InputError(f"step {step} is beyond the {self.steps} steps of this run")

    def differences(self, saved: dict[str, Any], step: int) -> list[str]:
        """Options of a saved run that made its first `step` steps and are other than these.

        Phases count if they have begun, on either side.
        """
        mine, theirs = asdict(self), {"phases": ()} | saved
        begun = max(_begun(options["phases"], step) for options in (mine, theirs))
        return differing(*(options | {"phases": options["phases"][:begun]} for options in (mine, theirs)))


def _begun(phases: Sequence[Mapping[str, Any]], step: int) -> int:
    """How many of the phases, as dictionaries, begin before `step`."""
    ends = accumulate(phase["samples"] // phase["batch"] for phase in phases)
    return sum(first < step for first in [0, *ends][: len(phases)])
