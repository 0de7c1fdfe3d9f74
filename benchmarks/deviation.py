"""How far recipes' actions are from a baseline's on demonstrations: which recipes are worth the hours of an evaluation?

    python -m benchmarks.deviation --dataset runs/demonstrations/widowx runs/demonstrations/google
    python -m benchmarks.deviation --dataset runs/demonstrations/widowx --recipes fast mine.yaml

Every recipe answers the same frames as a robot would show them that executes two actions of a chunk, and from the same
noise as the baseline. Of these two actions: how far translation and rotation are from the baseline's, in standard
deviations of the baseline's own, as mean and 95th percentile of the frames, and the share of other gripper commands.
`other noise` is the baseline itself from another draw of noise: a recipe below it changes less than chance does.
Ratios are the median of (baseline's time over the recipe's) with both in turns. None of this is a success rate.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.markdown import table
from vla import recipe as recipes
from vla.api import InputError, Observation
from vla.policy import SHIPPED, VlaPolicy, load_policy
from vla.training.dataset import Demonstrations
from vla.training.lerobot_files import Directory

OTHER_NOISE = "other noise"
EXECUTED = 2  # actions of a chunk, and so control steps between answers
_TRANSLATION, _ROTATION, _GRIPPER = slice(0, 3), slice(3, 6), 6
_NUMBERS = 7


@dataclass
class Answers:
    """What a recipe answered.

    Attributes:
        actions: of each frame, (2, 7) physical.
        ratios: of each frame, the baseline's time over the recipe's.
    """

    actions: list[NDArray[np.float32]] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each dataset."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    content = {}
    try:
        if asked.episodes < 1:
            raise InputError(f"--episodes must be at least 1, got {asked.episodes}")
        for directory in asked.dataset:
            content[str(directory)] = found = deviations(asked, directory)
            print(f"{directory}, {found['frames']} frames of {found['robot']}, baseline {asked.baseline}\n")
            print(table(_HEADER, [_row(name, each) for name, each in found["recipes"].items()]))
            for line in found["left_out"]:
                print(f"left out: {line}")
        print(f"in standard deviations of the baseline's; a recipe below {OTHER_NOISE!r} changes less than chance does")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if asked.out:
        asked.out.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def deviations(asked: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """All recipes on one dataset.

    Raises:
        InputError: if the dataset or the model cannot be read, or they do not fit each other.
    """
    robot = Directory.open(directory).robot
    baseline = load_policy(asked.model, asked.checkpoint, asked.baseline, robot=robot)
    if len(baseline.spec.actions) != _NUMBERS:
        raise InputError(f"deviations are of arms with a gripper, {_NUMBERS} numbers; {robot} has other actions")
    cameras = [camera.name for camera in baseline.spec.cameras]
    data = Demonstrations.open(directory, cameras, baseline.spec.horizon)
    policies, left_out = _policies(baseline, asked.recipes or recipes.names())
    shown = episodes(data, asked.episodes, bool(baseline.spec.state))
    own, answers = answered(baseline, policies, shown)
    by_name = {name: compared(each, own) for name, each in answers.items()}
    frames = sum(map(len, shown))
    return {"robot": robot, "frames": frames, "recipes": by_name, "left_out": left_out}


def episodes(data: Demonstrations, count: int, with_state: bool) -> list[list[Observation]]:
    """The frames at which a policy is asked, of some episodes spread evenly over all."""
    ends = [0, *map(int, data.episode_ends)]
    chosen = np.linspace(0, len(ends) - 2, min(count, len(ends) - 1)).astype(int)
    return [[data.observation(row, with_state) for row in range(ends[n], ends[n + 1], EXECUTED)] for n in chosen]


def answered(
    baseline: VlaPolicy, policies: Mapping[str, VlaPolicy], shown: Sequence[Sequence[Observation]]
) -> tuple[Answers, dict[str, Answers]]:
    """What the baseline and all others answer, frame by frame in turns."""
    own, others = Answers(), {name: Answers() for name in (OTHER_NOISE, *policies)}
    for episode in shown:
        for policy in (baseline, *policies.values()):
            policy.reset(episode[0].session)
        for seen in episode:
            actions, mine = _timed(baseline, seen)
            own.actions.append(actions)
            for name, answers in others.items():
                asked = replace(seen, session=f"{seen.session} again") if name == OTHER_NOISE else seen
                actions, seconds = _timed(policies.get(name, baseline), asked)
                answers.actions.append(actions)
                answers.ratios.append(mine / seconds)
    return own, others


def compared(answers: Answers, own: Answers) -> dict[str, Any]:
    """Deviations from the baseline's actions."""
    here, there = np.stack(answers.actions), np.stack(own.actions)  # (frames, executed, 7)
    middle = (there[..., _GRIPPER].max() + there[..., _GRIPPER].min()) / 2  # between opening and closing
    different = (here[..., _GRIPPER] > middle) != (there[..., _GRIPPER] > middle)
    return {
        "translation": _spread(here[..., _TRANSLATION], there[..., _TRANSLATION]),
        "rotation": _spread(here[..., _ROTATION], there[..., _ROTATION]),
        "gripper": float(different.mean()),
        "ratio": float(np.median(answers.ratios)),
    }


def _spread(here: NDArray[np.float32], there: NDArray[np.float32]) -> dict[str, float]:
    unit = there.std(axis=(0, 1)).mean()
    apart = np.linalg.norm(here - there, axis=-1) / unit  # (frames, executed)
    return {"mean": float(apart.mean()), "p95": float(np.percentile(apart, 95))}


def _policies(baseline: VlaPolicy, names: Sequence[str]) -> tuple[dict[str, VlaPolicy], list[str]]:
    """Those that fit the model, and why the others do not."""
    made, left_out = {}, []
    for name in names:
        chosen = recipes.find(name)
        try:
            made[chosen.name] = baseline.with_recipe(chosen)
        except InputError as error:
            left_out.append(str(error))
    return made, left_out


def _timed(policy: VlaPolicy, seen: Observation) -> tuple[NDArray[np.float32], float]:
    start = perf_counter()
    actions = policy.infer(seen).actions[:EXECUTED]
    return actions, perf_counter() - start


_HEADER = ("Recipe", "translation, mean", "p95", "rotation, mean", "p95", "other gripper", "x faster")


def _row(name: str, found: Mapping[str, Any]) -> list[str]:
    apart = [f"{found[part][which]:.3f}" for part in ("translation", "rotation") for which in ("mean", "p95")]
    return [name, *apart, f"{100 * found['gripper']:.1f}%", f"{found['ratio']:.2f}"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, nargs="+", required=True, help="LeRobotDatasets, each of one robot")
    parser.add_argument("--model", default=SHIPPED)
    parser.add_argument("--checkpoint", type=Path, help="directory, instead of a model")
    parser.add_argument("--baseline", default="none", help="recipe that the others are compared with")
    parser.add_argument("--recipes", nargs="+", help="names or files; all that there are if left out")
    parser.add_argument("--episodes", type=int, default=8, help="of each dataset")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
