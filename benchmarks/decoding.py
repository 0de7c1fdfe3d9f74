"""Decoders of action words on one checkpoint: wall time as ratios, words per pass, and what a pass costs by its size.

    python benchmarks/decoding.py --checkpoint runs/train/tokens/checkpoint --dataset runs/demonstrations/spoon
    python benchmarks/decoding.py --checkpoint runs/train/tokens/checkpoint --shape openvla_7b --dtype bfloat16

Decoders answer the same frames in turns (A B C, C B A, …), consecutive frames of an episode if there is a dataset, so
that `jacobi` begins with the chunk before as it does on a robot. A ratio is the autoregressive decoder's time on a
frame over that of another; the table has the median and the 10th and 90th percentile of all frames' ratios.

With --shape, a model of that shape with random weights times single passes over 1, 2, 4, … words. From these costs and
the passes counted above follows a *projected* speed-up of decoding at that shape: it assumes that a model of that shape
would accept as many words as this checkpoint did.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eval.machine import describe
from eval.markdown import table
from eval.profiler.latency import random_observation
from vla.accelerate.lean.encoder import encoder_blocks
from vla.accelerate.lean.layer import decoder_layer
from vla.accelerate.lean.trunks import LeanTrunk, LeanWriter
from vla.api import InputError, Observation
from vla.policy import DTYPES, VlaPolicy, load_policy
from vla.recipe import find
from vla.training.dataset import Demonstrations

BASELINE = "autoregressive"
DECODERS = (BASELINE, "jacobi", "self_speculative", "block_diffusion")
INSTRUCTION = "put the spoon on the towel"
_RECIPE: Mapping[str, Any] = {"denoising_steps": 10, "guidance_scale": 1.0, "execution": "lean"}


@dataclass
class Taken:
    """What one decoder did, a value for each frame.

    Attributes:
        head_ms, total_ms: of decoding, of the whole answer.
        statistics: words per pass and so on.
        sizes: words that each pass read.
        same: whether the actions are the autoregressive decoder's.
    """

    head_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    statistics: list[Mapping[str, float]] = field(default_factory=list)
    sizes: list[list[int]] = field(default_factory=list)
    same: list[bool] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, write --out; exit status 2 on wrong usage."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    try:
        policies = decoding_policies(asked)
        taken = measure(policies, frames(asked, policies[BASELINE]))
        content: dict[str, Any] = {"made": describe(sys.argv, ""), "decoders": summary(taken)}
        print(decoders_table(content["decoders"]))
        if asked.shape:
            content["shape"] = asked.shape
            content["pass_ms"] = costs(asked, max(size for each in taken.values() for s in each.sizes for size in s))
            content["projected"] = projected(taken, content["pass_ms"])
            print(shape_tables(asked.shape, content["pass_ms"], content["projected"]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if asked.out:
        asked.out.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def decoding_policies(asked: argparse.Namespace) -> dict[str, VlaPolicy]:
    """Name -> policy; those that the checkpoint cannot do are left out, and said.

    Raises:
        InputError: if the checkpoint cannot be read.
    """
    common = {"checkpoint": asked.checkpoint, "robot": asked.robot, "dtype": asked.dtype, "device": asked.device}
    made = {BASELINE: load_policy(recipe={**_RECIPE, "decoding": BASELINE}, **common)}
    for text in asked.decoders:
        options = dict(option.split("=", 1) for option in text.split(",")[1:])
        values = {key: _value(value) for key, value in options.items()} | {"method": text.split(",")[0]}
        try:
            made[text] = made[BASELINE].with_recipe(find({**_RECIPE, "decoding": values}))
        except InputError as error:
            print(f"left out: {error}", file=sys.stderr)
    return made


def frames(asked: argparse.Namespace, policy: VlaPolicy) -> list[Observation]:
    """What the decoders are asked: consecutive frames of a demonstration, or noise.

    Raises:
        InputError: if the dataset cannot be read.
    """
    if asked.dataset is None:
        return [random_observation(policy.spec, INSTRUCTION)] * asked.frames
    cameras = [camera.name for camera in policy.spec.cameras]
    data = Demonstrations.open(asked.dataset, cameras, policy.spec.horizon)
    return [data.observation(row, bool(policy.spec.state)) for row in range(min(asked.frames, len(data)))]


def measure(policies: Mapping[str, VlaPolicy], seen: Sequence[Observation]) -> dict[str, Taken]:
    """All decoders on all frames, in turns; one answer of each to warm up."""
    taken = {name: Taken() for name in policies}
    for policy in policies.values():
        policy.infer(seen[0])
        policy.reset(seen[0].session)
    for number, observation in enumerate(seen):
        actions = {}
        turn = list(policies.items())
        for name, policy in turn if number % 2 == 0 else turn[::-1]:
            chunk, mine = policy.infer(observation), taken[name]
            actions[name] = chunk.actions
            mine.head_ms.append(chunk.timing["head"])
            mine.total_ms.append(chunk.timing["total"])
            mine.statistics.append(chunk.statistics)
            assert policy.stages.decoder is not None
            mine.sizes.append(policy.stages.decoder.sizes)
        for name, mine in taken.items():
            mine.same.append(np.array_equal(actions[name], actions[BASELINE]))
    return taken


def summary(taken: Mapping[str, Taken]) -> dict[str, dict[str, Any]]:
    """Figures of each decoder."""
    base = taken[BASELINE]
    return {
        name: {
            "frames": len(mine.head_ms),
            "head_ms": float(np.median(mine.head_ms)),
            "total_ms": float(np.median(mine.total_ms)),
            "head_ratio": _spread(np.divide(base.head_ms, mine.head_ms)),
            "total_ratio": _spread(np.divide(base.total_ms, mine.total_ms)),
            "same_actions": float(np.mean(mine.same)),
            **{key: float(np.mean([each[key] for each in mine.statistics])) for key in mine.statistics[0]},
        }
        for name, mine in taken.items()
    }


def costs(asked: argparse.Namespace, most: int) -> dict[int, list[float]]:
    """Words in a pass -> its times [ms] in a model of another shape with random weights, sizes in turns.

    Raises:
        InputError: if there is no such shape, or too little memory.
    """
    named: dict[str, Any] = {"checkpoint": asked.shape} if Path(asked.shape).is_dir() else {"model": asked.shape}
    policy = load_policy(**named, init="random", recipe=_RECIPE, device=asked.device, dtype=asked.dtype)
    model: Any = policy.model
    sizes = [size for size in (1, 2, 4, 7, 14, 28, 56, 112) if size < most] + [most]
    found: dict[int, list[float]] = {size: [] for size in sizes}
    with torch.inference_mode():
        trunk = LeanTrunk(model, encoder_blocks, decoder_layer)
        writer = LeanWriter(model, trunk.decoder)
        images, prompts, states = policy.tensors([random_observation(policy.spec, INSTRUCTION)])
        prefilled = trunk.prefill(trunk.encode(images), prompts, states)
        words = torch.full((1, most), model.config.first_action_word, device=policy.device)
        for repeat in range(asked.repeats + 1):
            for size in sizes if repeat % 2 else sizes[::-1]:
                start = time.perf_counter()
                writer.action_logits(writer.extend(prefilled, words[:, :size]).hidden).argmax(dim=-1).cpu()
                if repeat:
                    found[size].append(1e3 * (time.perf_counter() - start))
    return found


def projected(taken: Mapping[str, Taken], pass_ms: Mapping[int, Sequence[float]]) -> dict[str, float]:
    """Decoder -> speed-up of decoding if its passes cost what those of the other shape cost; the prompt left out."""
    known = sorted(pass_ms)
    medians = [float(np.median(pass_ms[size])) for size in known]
    spent = {
        name: sum(float(np.interp(size, known, medians)) for sizes in mine.sizes for size in sizes)
        for name, mine in taken.items()
    }
    return {name: spent[BASELINE] / total for name, total in spent.items()}


def decoders_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """As Markdown."""
    header = ("Decoder", "head [ms]", "head, x faster [p10, p90]", "answer, x faster [p10, p90]", "passes")
    header += ("words per pass", "acceptance length", "same actions", "frames")
    rows = [
        [
            name,
            f"{each['head_ms']:.1f}",
            _ratio(each["head_ratio"]),
            _ratio(each["total_ratio"]),
            *(f"{each[key]:.2f}" for key in ("passes", "words_per_pass", "acceptance_length")),
            f"{100 * each['same_actions']:.0f} %",
            str(each["frames"]),
        ]
        for name, each in found.items()
    ]
    return table(header, rows)


def shape_tables(shape: str, pass_ms: Mapping[int, Sequence[float]], speedups: Mapping[str, float]) -> str:
    """As Markdown."""
    one = np.median(pass_ms[1])
    rows = [[str(size), f"{np.median(ms):.2f}", _ratio(_spread(np.divide(ms, one)))] for size, ms in pass_ms.items()]
    costs_table = table(("Words in a pass", "median [ms]", "x one word [p10, p90]"), rows)
    lines = table(("Decoder", "projected, x faster"), [[name, f"{each:.2f}"] for name, each in speedups.items()])
    return (
        f"One pass of {shape}, random weights (measured):\n\n{costs_table}\n"
        f"Projection for decoding at the shape {shape}, if as many words were accepted as measured above:\n\n{lines}"
    )


def _spread(values: Any) -> dict[str, float]:
    return {f"p{q}": float(np.percentile(values, q)) for q in (10, 50, 90)}


def _ratio(spread: Mapping[str, float]) -> str:
    return f"{spread['p50']:.2f} [{spread['p10']:.2f}, {spread['p90']:.2f}]"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="directory of a model that says actions in words"
    )
    parser.add_argument("--robot", help="whose processing, of a checkpoint for several")
    parser.add_argument("--dataset", type=Path, help="LeRobotDataset whose first frames are shown; else noise")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument(
        "--decoders",
        nargs="+",
        default=list(DECODERS[1:]),
        help="each a method and its options, such as block_diffusion,block=14,threshold=0.8",
    )
    parser.add_argument("--shape", help="a preset or a checkpoint's directory: also time single passes at its shape")
    parser.add_argument("--repeats", type=int, default=20, help="of each single pass")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
