"""How a profile is measured, in words, and what to be careful about in one."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.profiler.latency import TOTAL

STAGES_AGREE = 0.05  # of the total
QUIET = 1.1  # p90 over p50 of the same work
METHOD = (
    "batch of one; every recipe answers the same observations, from one to the next of which a fifth of every image "
    "changes, which matters to recipes that remember images; warm-up first, then in each round every recipe in turn "
    "(A B, B A, A B, ...), once with stage timers and once without; the device is waited for at both ends of what is "
    "timed; Python's garbage collection waits until a round is over; total is end to end, from observation to actions "
    "in host memory, without stage timers; percentiles are measured values, so that p99 of fewer than 100 answers is "
    "the slowest; inside stages that are recorded or traced nobody can look: parts of them are those of one more "
    "answer by the plain stages",
    "speedup is the ratio of median totals to the first recipe's, its interval the 95 % percentile bootstrap over "
    "rounds; rounds that follow each other are taken as independent",
    "yardstick is the same small matrix product once a round: its spread is the machine's, not the model's",
    "GFLOPs, of the third answer, count matrix products and convolutions that are done, a multiplication with an "
    "addition as two; attention is counted in full, masked or not",
    "read_bytes are the weights that one answer reads, each once; weight_bytes all there are; peak_bytes on cpu is the "
    "resident memory of the whole process, on cuda what is allocated on the device",
    "floor_ms is the larger of read_bytes / reading rate and operations / product rate, each the best measured "
    "before and after the rounds; the reading rate is that of as many bytes as are read, at most 1 GiB "
    "on cpu and 4 GiB on cuda",
    "difference is the largest of an action's number from the first recipe's, relative to the largest there",
)


def cautions(rows: Sequence[Mapping[str, Any]], meta: Mapping[str, Any]) -> list[str]:
    """What in a profile is not as it should be, in sentences; empty if nothing is."""
    found = [caution for row in rows for caution in _of_row(row)]
    spread = meta["yardstick_ms"]["p90"] / meta["yardstick_ms"]["p50"]
    if spread > QUIET:
        found.append(
            f"the machine was not quiet: the same product took {spread:.2f} times its median in a tenth of the rounds"
        )
    if meta["rounds"] < meta["repeats"]:
        found.append(f"unfinished: {meta['rounds']} of {meta['repeats']} rounds")
    rates = meta["ceilings"]["flops_per_second"]
    if rates.get("bfloat16", rates["float32"]) < rates["float32"]:
        found.append("products in bfloat16 are slower than in float32: this device emulates them")
    return found


def _of_row(row: Mapping[str, Any]) -> list[str]:
    found, total = [], row["stages_ms"][TOTAL]["p50"]
    if abs(row["stages_of_total"] - 1) > STAGES_AGREE:
        found.append(
            f"{row['recipe']}: the stages add up to {100 * row['stages_of_total']:.0f} % of the total, "
            f"more than {100 * STAGES_AGREE:.0f} % off"
        )
    if total < row["floor_ms"]:
        found.append(
            f"{row['recipe']}: {total:.2f} ms are below the floor of {row['floor_ms']:.2f} ms: "
            "the ceilings were measured in a slower moment"
        )
    return found
