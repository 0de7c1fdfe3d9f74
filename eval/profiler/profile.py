"""Puts a profile together: load the recipes, count, measure the ceilings, measure the latencies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from eval.machine import describe, processor
from eval.profiler.ceilings import Ceilings, Sizes, measure_ceilings
from eval.profiler.cost import (
    count_flops,
    count_parameters,
    forget_peak_memory,
    memory_in_use,
    peak_memory,
    weight_bytes,
)
from eval.profiler.latency import Samples, device_name, measure, random_observation, speedup
from eval.profiler.report import METHOD
from eval.profiler.settings import Settings
from vla.api import Observation
from vla.policy import VlaPolicy, find_device, load_policy


@dataclass(frozen=True)
class Subject:
    """A policy to measure, and what was counted while it was loaded.

    Attributes:
        flops: stage -> floating-point operations of one answer.
        peak_bytes: the most memory that one answer needs, without what other subjects take.
    """

    policy: VlaPolicy
    flops: dict[str, int]
    peak_bytes: int


def profile(
    settings: Settings,
    argv: Sequence[str],
    *,
    sizes: Sizes | None = None,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measure everything; the content of `profile.json`.

    Args:
        settings: what to measure.
        argv: the command as it was started.
        sizes: of the work that the ceilings are measured with; None for what suits the device.
        on_round: called after each round of measurements.

    Raises:
        InputError: if a model, recipe, checkpoint or device cannot be used.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    subjects = load_subjects(settings)
    first = subjects[0].policy
    ceilings = measure_ceilings(first.device, {first.dtype, torch.float32}, sizes)
    observation = random_observation(first.spec, settings.instruction)
    policies = [subject.policy for subject in subjects]
    samples = measure(policies, observation, warm_up=settings.warm_up, repeats=settings.repeats, on_round=on_round)
    rows = [row(subject, taken, samples[0], ceilings) for subject, taken in zip(subjects, samples, strict=True)]
    return {"meta": meta(settings, argv, first.device, ceilings), "rows": rows}


def load_subjects(settings: Settings) -> list[Subject]:
    """Load and count, one recipe after the other."""
    subjects: list[Subject] = []
    device = find_device(settings.device)
    before_all = memory_in_use(device)
    for recipe in settings.accel:
        before = memory_in_use(device)
        policy = load_policy(
            settings.model, settings.checkpoint, recipe, settings.device, settings.dtype, settings.init
        )
        observation = random_observation(policy.spec, settings.instruction)
        peak = _peak_of_one_answer(policy, observation) - (before - before_all)
        subjects.append(Subject(policy, count_flops(policy, observation), peak))
    return subjects


def row(subject: Subject, samples: Samples, baseline: Samples, ceilings: Ceilings) -> dict[str, Any]:
    """One line of `profile.json`."""
    policy, flops = subject.policy, subject.flops
    size = weight_bytes(policy.model)
    by_dtype = {policy.dtype: 0, torch.float32: 0}
    for stage, count in flops.items():
        by_dtype[torch.float32 if stage == "head" else policy.dtype] += count
    return {
        "model": policy.spec.model,
        "checkpoint": policy.spec.checkpoint,
        "device": policy.device.type,
        "dtype": _name(policy.dtype),
        "recipe": policy.recipe.name,
        "stages_ms": samples.percentiles(),
        "stages_of_total": samples.covered,
        "gflops": sum(flops.values()) / 1e9,
        "stages_gflops": {stage: count / 1e9 for stage, count in flops.items()},
        "parameters": count_parameters(policy.model),
        "weight_bytes": size,
        "peak_bytes": subject.peak_bytes,
        "floor_ms": ceilings.floor_ms(size, by_dtype),
        **speedup(baseline.total, samples.total),
    }


def meta(settings: Settings, argv: Sequence[str], device: torch.device, ceilings: Ceilings) -> dict[str, Any]:
    """Where, with what and how the rows were measured."""
    described = describe(argv, "")
    del described["gl_renderer"]
    return {
        **described,
        "device": device_name(device, processor()),
        "threads": torch.get_num_threads(),
        "warm_up": settings.warm_up,
        "repeats": settings.repeats,
        "ceilings": {
            "bytes_per_second": ceilings.bytes_per_second,
            "flops_per_second": {_name(dtype): rate for dtype, rate in ceilings.flops_per_second.items()},
        },
        "method": METHOD,
    }


def _peak_of_one_answer(policy: VlaPolicy, observation: Observation) -> int:
    policy.infer(observation)  # the first answer also pays for what libraries set up once
    forget_peak_memory(policy.device)
    policy.infer(observation)
    return peak_memory(policy.device)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
