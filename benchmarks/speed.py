"""How much faster the recipe `exact` is than `reference`: both in turns in one run, beside what is wanted of it.

    python -m benchmarks.speed                                                      the shipped policy, processor
    python -m benchmarks.speed --model cogact_base --dtype bfloat16 --repeats 5     7B shape, random weights, 16 GB
    python -m benchmarks.speed --model cogact_base --dtype bfloat16 --device cuda   the same on a GPU

Measured with the code of cadence-profile: end to end, without stage timers, 95% interval by bootstrap over rounds.
Exit status 1 if what is wanted is missed with the whole interval.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from rich.console import Console

from eval.profiler.profile import prepare
from eval.profiler.report import tables
from eval.profiler.settings import Settings
from vla.policy import SHIPPED, TRAINED

RECIPES = ("reference", "exact")
INSTRUCTION = "place the green block on top of the yellow block"  # 282 tokens at the 7B shapes, as published
FASTER = {(SHIPPED, "cpu"): 2.0, ("7B", "cpu"): 1.1, ("7B", "cuda"): 4.0}  # times `reference`
ABOVE_FLOOR = 2.5  # at most so many times the floor, on a GPU


def main() -> int:
    """Measure, print, compare with what is wanted."""
    given = _arguments()
    profile = prepare(_settings(given), sys.argv)
    content = profile.measure()
    meta, exact = content["meta"], content["rows"][-1]
    print(f"{date.today()}, {meta['device']}, {meta['machine']['cores']} core(s), {meta['machine']['system']}")
    command = shlex.join(["python", "-m", "benchmarks.speed", *sys.argv[1:]])
    print(f"{command} (Cadence {meta['version']}, commit {meta['git']})")
    Console(width=120).print(tables(content))
    findings = judged(given.model, exact)
    for line, _ in findings:
        print(line)
    return int(any(missed for _, missed in findings))


def judged(model: str, exact: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """What is wanted of the recipe, and whether it is missed for sure.

    Args:
        model: its name.
        exact: the recipe's row of a `profile.json`.
    """
    found = []
    wanted = FASTER.get((model if model == SHIPPED else "7B", exact["device"]))
    (low, high), middle = exact["speedup_ci95"], exact["speedup"]
    if wanted is not None:
        word = "reached" if low >= wanted else "missed" if high < wanted else "undecided"
        times = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        found.append((f"exact is {times} times as fast as reference; wanted {wanted}: {word}", word == "missed"))
    if exact["device"] == "cuda":
        times = exact["stages_ms"]["total"]["p50"] / exact["floor_ms"]
        word = "reached" if times <= ABOVE_FLOOR else "missed"
        line = f"exact takes {times:.2f} times the floor; wanted at most {ABOVE_FLOOR}: {word}"
        found.append((line, word == "missed"))
    return found


def _settings(given: argparse.Namespace) -> Settings:
    return Settings(
        model=given.model,
        accel=RECIPES,
        checkpoint=None,
        dataset=None,
        init=TRAINED if given.model == SHIPPED else "random",
        device=given.device,
        dtype=given.dtype,
        threads=given.threads,
        instruction=INSTRUCTION,
        warm_up=given.warm_up,
        repeats=given.repeats,
        trace=False,
        kept=None,
        out="",
    )


def _arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=SHIPPED, help="a shipped model, or a preset: built with random weights")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, help="of the processor")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=40)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
