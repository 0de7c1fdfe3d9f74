"""Control steps of recipes side by side, in one process and in turns, over one copy of the weights.

python benchmarks/recipes.py --model tiny --recipes reference none exact --repeats 50
python benchmarks/recipes.py --model cogact_base --init random --dtype bf16 --recipes reference exact --repeats 5
"""

import argparse
import os
from time import perf_counter

import numpy as np
import torch

from eval.machine import processor
from eval.profiler.latency import random_observation
from vla import recipe as recipes
from vla.api import Observation
from vla.policy import VlaPolicy, load_policy
from vla.timing import StageTimer, Untimed

STAGES = ("encode", "prefill", "head")


def load(options: argparse.Namespace) -> list[VlaPolicy]:
    """One policy a recipe, the first one's weights shared by all; says how long loading and first answers took."""
    start = perf_counter()
    first = load_policy(
        options.model, options.checkpoint, options.recipes[0], options.device, options.dtype, options.init
    )
    print(f"loading {first.spec.model} in {options.dtype} took {perf_counter() - start:.1f} s")
    return [first, *(first.with_recipe(recipes.find(recipe)) for recipe in options.recipes[1:])]


def warm_up(policies: list[VlaPolicy], answers: int) -> list[np.ndarray]:
    """First answers, and the actions that they gave."""
    actions = []
    for policy in policies:
        observation = random_observation(policy.spec, "put the spoon on the towel")
        start = perf_counter()
        actions.append(policy.infer(observation).actions)
        print(f"{policy.recipe.name:>12}: first answer {perf_counter() - start:.2f} s")
        for _ in range(answers - 1):
            policy.infer(observation)
    return actions


def measure(policies: list[VlaPolicy], repeats: int) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Milliseconds end to end, and of each stage, by policy and repeat; taken A B, B A, A B, ..."""
    totals: list[list[float]] = [[] for _ in policies]
    stages: list[list[list[float]]] = [[] for _ in policies]
    observation = random_observation(policies[0].spec, "put the spoon on the towel")
    for repeat in range(repeats):
        turn = list(enumerate(policies))
        for number, policy in turn if repeat % 2 == 0 else turn[::-1]:
            totals[number].append(end_to_end(policy, observation))
            stages[number].append(staged(policy, observation))
    return totals, stages


def end_to_end(policy: VlaPolicy, observation: Observation) -> float:
    """Milliseconds of one answer without stage timers."""
    policy.spans = Untimed
    start = perf_counter()
    policy.infer(observation)
    return 1e3 * (perf_counter() - start)


def staged(policy: VlaPolicy, observation: Observation) -> list[float]:
    """Milliseconds of each stage of one answer."""
    policy.spans = lambda: StageTimer(policy.device)
    timing = policy.infer(observation).timing
    return [timing[stage] for stage in STAGES]


def main() -> None:
    """Print one line per recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--checkpoint")
    parser.add_argument("--init", default="trained")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--recipes", nargs="+", default=["reference", "exact"])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of the processor; as many as torch chooses if not given")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    policies = load(options)
    actions = warm_up(policies, options.warm_up)
    totals, stages = measure(policies, options.repeats)
    busy = f"{os.getloadavg()[0]:.1f} processes were running"
    print(
        f"{options.model} on {options.device} ({processor()}), {torch.get_num_threads()} threads, "
        f"{options.repeats} repeats in turns; {busy}"
    )
    print(f"{'recipe':>12} {'p10':>9} {'p50':>9} {'p90 ms':>9}  speedup [p10, p90]   difference   encode prefill head")
    for policy, total, parts, given in zip(policies, totals, stages, actions, strict=True):
        low, median, high = np.percentile(total, (10, 50, 90))
        slowest, ratio, fastest = np.percentile(np.array(totals[0]) / np.array(total), (10, 50, 90))
        difference = np.abs(given - actions[0]).max() / np.abs(actions[0]).max()
        medians = " ".join(f"{ms:.2f}" for ms in np.median(parts, axis=0))
        print(
            f"{policy.recipe.name:>12} {low:9.2f} {median:9.2f} {high:9.2f}  {ratio:.2f} "
            f"[{slowest:.2f}, {fastest:.2f}]   {difference:10.1e}   {medians}"
        )


if __name__ == "__main__":
    main()
