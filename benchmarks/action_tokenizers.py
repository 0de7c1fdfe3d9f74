"""Two ways to say a chunk of actions in tokens: 256 bins for each number, or FAST (cosines, rounding, byte pairs).

    python benchmarks/action_tokenizers.py --dataset runs/demonstrations/spoon runs/demonstrations/can

FAST is fitted on demonstrations; tokens for a chunk and the error of saying it and reading it back are measured on held
out episodes. Errors are absolute, in normalised units ([-1, 1] is the middle 98 % of a number's values) and for the
translation in millimetres, as mean and 99th percentile.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.markdown import table
from vla.action_tokens import FastTokenizer
from vla.api import InputError
from vla.processing import Processing
from vla.training.beginning import processing_for
from vla.training.mixture import Mixture

_TRANSLATION = 3  # the first numbers of an action
Chunks = NDArray[np.float32]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, measure, print a table for each robot; exit status 2 on wrong usage."""
    asked = _parser().parse_args(arguments)
    header = ("Tokens", "vocabulary", "tokens of a chunk, mean", "p99", "error, mean", "p99", "mm, mean", "p99")
    try:
        data = Mixture.open(asked.dataset, None, asked.horizon)
        for robot, parts in data.by_robot().items():
            one = Mixture(parts)
            processing = processing_for(parts, next(iter(parts[0].views.values())).shape[1])
            fitted, held_out = (chunks(one, processing, frames) for frames in one.split(asked.held_out))
            fitted = fitted[:: max(1, len(fitted) // asked.most)]
            rows = [_row("bins", f"{asked.bins}", *in_bins(held_out, asked.bins), held_out, processing)]
            for scale in asked.scales:
                tokenizer = FastTokenizer.fit(fitted, scale, asked.vocabulary)
                tokens = tokenizer.encode(held_out)
                lengths = np.array([len(each) for each in tokens])
                if asked.save:
                    tokenizer.save(asked.save.with_name(f"{asked.save.name}-{robot}-{scale:g}.json"))
                name = f"FAST, scale {scale:g}"
                rows.append(_row(name, f"{asked.vocabulary}", tokenizer.decode(tokens), lengths, held_out, processing))
            print(f"{robot}: {len(fitted)} chunks to fit, {len(held_out)} held out, {asked.horizon} actions each\n")
            print(table(header, rows))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def chunks(data: Mixture, processing: Processing, frames: NDArray[np.int64]) -> Chunks:
    """(frames, horizon, numbers) normalised, as training sees them."""
    found = [part.chunk(rows) for part, rows, _ in data.located(frames)]
    return processing.action_range.normalise(np.concatenate(found)).clip(-1, 1)


def in_bins(said: Chunks, bins: int) -> tuple[Chunks, NDArray[np.int64]]:
    """What bins make of chunks, and their tokens' numbers: one for each number."""
    edges = np.linspace(-1, 1, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    index = (np.digitize(said, edges) - 1).clip(0, bins - 2)
    return centres[index].astype(np.float32), np.full(len(said), said[0].size)


def _row(
    name: str, vocabulary: str, heard: Chunks, lengths: NDArray[np.int64], said: Chunks, processing: Processing
) -> list[str]:
    error = np.abs(heard - said)
    metres = [processing.physical_actions(each.clip(-1, 1))[..., :_TRANSLATION] for each in (heard, said)]
    millimetres = 1e3 * np.abs(metres[0] - metres[1])
    cells = [f"{lengths.mean():.1f}", f"{np.percentile(lengths, 99):.0f}"]
    cells += [f"{error.mean():.4f}", f"{np.percentile(error, 99):.4f}"]
    return [name, vocabulary, *cells, f"{millimetres.mean():.2f}", f"{np.percentile(millimetres, 99):.2f}"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, nargs="+", required=True, help="LeRobotDataset directories")
    parser.add_argument("--horizon", type=int, default=8, help="actions in a chunk")
    parser.add_argument("--bins", type=int, default=256)
    parser.add_argument("--scales", type=float, nargs="+", default=[5.0, 10.0, 20.0, 50.0])
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--held-out", type=float, default=0.1, help="share of the episodes")
    parser.add_argument("--most", type=int, default=20000, help="chunks to fit on")
    parser.add_argument("--save", type=Path, help="beginning of the files that fitted tokenizers are written to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
