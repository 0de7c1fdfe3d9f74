"""How to train: phases of growing image size, learning rates, and what a continued run must share with its past."""

import math
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from vla.api import InputError
from vla.training.optimizer import cosine

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
        if min(self.image_size, self.samples, self.batch) < 1 or self.samples % self.batch:
            raise InputError(f"image_size, samples and batch must be positive and samples a multiple of batch: {self}")
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise InputError(f"learning rates must fall from learning_rate to final_learning_rate >= 0: {self}")

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
        if not self.phases or self.draws < 1 or self.validate_every < 1 or not 0 <= self.average_decay < 1:
            raise InputError(f"needs phases, draws >= 1, validate_every >= 1 and average_decay in [0, 1): {self}")

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
        """Options of a saved run that made its first `step` steps and are other than these."""
        begun = next(i for i, first in enumerate(self._starts()) if first >= step)
        mine = asdict(self) | {"phases": asdict(self)["phases"][:begun]}
        theirs = saved | {"phases": saved.get("phases", ())[:begun]}
        return [key for key, value in mine.items() if theirs.get(key) != value]

    def _starts(self) -> list[float]:
        """First step of each phase, and an end that is never reached."""
        return [0, *accumulate(phase.steps for phase in self.phases[:-1]), math.inf]
