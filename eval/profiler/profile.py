"""Puts a profile together: load the recipes, count, measure the ceilings, measure the latencies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from eval.machine import describe, processor
from eval.profiler.ceilings import Ceilings, Effort, measure_ceilings
from eval.profiler.cost import count_parameters, weight_bytes
from eval.profiler.kept import observation_of, write_kept
from eval.profiler.latency import PERCENTILES, Samples, Yardstick, measure, speedup
from eval.profiler.method import METHOD, cautions
from eval.profiler.settings import Settings
from eval.profiler.subjects import Subject, differences, load
from eval.profiler.trace import write_trace
from eval.statistics import percentile
from vla.api import Observation

Content = dict[str, Any]


@dataclass(frozen=True)
class Profile:
    """What is about to be measured, and everything about it that is not a latency.

    Attributes:
        made: with what command, machine and packages.
        remeasure: measures the ceilings again.
        yardstick: tells the noise of the machine.
    """

    settings: Settings
    made: Content
    subjects: Sequence[Subject]
    observation: Observation
    ceilings: Ceilings
    remeasure: Callable[[], Ceilings]
    yardstick: Yardstick

    def measure(self, on_round: Callable[[Callable[[], Content]], None] = lambda content: None) -> Content:
        """Measure; the content of `profile.json`.

        Args:
            on_round: called after each round with what makes the content out of the rounds so far.
        """
        policies = [subject.policy for subject in self.subjects]
        samples = measure(
            policies,
            self.observation,
            warm_up=self.settings.warm_up,
            repeats=self.settings.repeats,
            yardstick=self.yardstick,
            on_round=lambda samples: on_round(lambda: self.content(samples)),
        )
        return replace(self, ceilings=self.ceilings.best(self.remeasure())).content(samples)

    def content(self, samples: Sequence[Samples]) -> Content:
        """`profile.json` of the rounds so far."""
        apart = differences(self.subjects)
        rows = [
            row(subject, taken, samples[0], self.ceilings) | {"difference": difference}
            for subject, taken, difference in zip(self.subjects, samples, apart, strict=True)
        ]
        meta = self._meta(len(samples[0].total))
        return {"meta": {**meta, "cautions": cautions(rows, meta)}, "rows": rows}

    def trace(self, folder: str) -> list[str]:
        """Write a trace of one answer of each recipe; returns the files."""
        return [write_trace(subject.policy, self.observation, folder) for subject in self.subjects]

    def pictures(self, folder: str) -> list[str]:
        """Draw which visual tokens of `settings.kept` each recipe keeps; returns the files.

        Raises:
            InputError: as `eval.profiler.kept.observation_of`.
        """
        assert self.settings.kept is not None
        policies = [subject.policy for subject in self.subjects]
        seen = observation_of(self.settings.kept, policies[0].spec, self.settings.instruction)
        return [write_kept(policy, seen, folder) for policy in policies]

    def _meta(self, rounds: int) -> Content:
        """Where, with what and how the rows were measured."""
        device = self.subjects[0].policy.device
        return {
            **self.made,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
            "threads": torch.get_num_threads(),
            "instruction": self.settings.instruction,
            "warm_up": self.settings.warm_up,
            "repeats": self.settings.repeats,
            "rounds": rounds,
            "yardstick_ms": {f"p{q}": percentile(self.yardstick.milliseconds, q) for q in PERCENTILES},
            "ceilings": {
                "bytes_per_second": self.ceilings.bytes_per_second,
                "bytes_read": self.ceilings.bytes_read,
                "flops_per_second": {_name(dtype): rate for dtype, rate in self.ceilings.flops_per_second.items()},
            },
            "method": METHOD,
        }


def prepare(settings: Settings, argv: Sequence[str], effort: Effort | None = None) -> Profile:
    """Load, count, and measure what the device can do.

    Args:
        settings: what to measure.
        argv: the command as it was started.
        effort: of measuring the ceilings; None for what suits the device.

    Raises:
        InputError: if a model, recipe, checkpoint, device or dtype cannot be used, or does not fit into memory.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    subjects, observation = load(settings)
    device = subjects[0].policy.device
    used = {dtype for subject in subjects for dtype in subject.cost.flops_by_dtype}
    least_read = min(subject.cost.read_bytes for subject in subjects)
    remeasure = partial(measure_ceilings, device, used | {torch.float32}, least_read, effort)
    made = describe(argv, "")
    del made["gl_renderer"]
    return Profile(settings, made, subjects, observation, remeasure(), remeasure, Yardstick(device))


def row(subject: Subject, samples: Samples, baseline: Samples, ceilings: Ceilings) -> Content:
    """One line of `profile.json`."""
    policy, cost = subject.policy, subject.cost
    faster, interval = speedup(baseline.total, samples.total)
    return {
        "model": policy.spec.model,
        "checkpoint": policy.spec.checkpoint,
        "device": policy.device.type,
        "dtype": _name(policy.dtype),
        "recipe": policy.recipe.name,
        "stages_ms": samples.percentiles(),
        "stages_of_total": samples.covered,
        "first_answer_ms": subject.first_answer_ms,
        "gflops": sum(cost.flops.values()) / 1e9,
        "stages_gflops": {stage: count / 1e9 for stage, count in cost.flops.items()},
        "gflops_by_dtype": {_name(dtype): count / 1e9 for dtype, count in cost.flops_by_dtype.items()},
        "parameters": count_parameters(policy.model),
        "weight_bytes": weight_bytes(policy.model),
        "read_bytes": cost.read_bytes,
        "peak_bytes": subject.peak_bytes,
        "floor_ms": ceilings.floor_ms(cost.read_bytes, cost.flops_by_dtype),
        "speedup": faster,
        "speedup_ci95": list(interval),
        **({"decoding": dict(policy.stages.decoder.statistics)} if policy.stages.decoder else {}),
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
