"""What converting a model to fill in blocks costs: memory and time of a training step, with and without visual tokens
in the noisy streams; and a picture of who sees whom.

    python benchmarks/conversion.py
    python benchmarks/conversion.py --picture benchmarks/attention_mask.png

Memory is what one step keeps for the gradients, counted tensor by tensor, so it is the same on every machine.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from eval.markdown import table
from vla.models.openvla import OpenVla
from vla.models.trunk import TrunkConfig
from vla.training.allocator import keep_freed_memory
from vla.training.attention import use_training_operations
from vla.training.batches import Batch
from vla.training.blocks import Blocks, visibility
from vla.training.objectives import Words
from vla.training.speaking import Tokens, config_for, made

_PROMPT = ("start", "image", "image", "image", "image", "state", "text", "text")
_COLOURS = ("#ffffff", "#9dbfd8", "#1f5f8b", "#d9822b")
_BLOCKS = Blocks(8, False, True, 0.25, 0.5, vision_efficient=True, shifted=False, blind=0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; draw the picture if asked to."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    if asked.picture:
        draw(asked.picture)
        print(f"picture: {asked.picture}")
        return 0
    model = speaker(asked.language_depth)
    rows = []
    for size in asked.image_sizes:
        shown = batch(model, asked.batch, size)
        for name, objective in objectives().items():
            kept, seconds = step(model, objective, shown)
            rows.append([f"{size} px", name, f"{kept / 1e6:.0f}", f"{asked.batch / seconds:.1f}"])
    print(table(("Images", "Objective", "kept for gradients [MB]", "samples/s"), rows, left=2))
    return 0


def objectives() -> dict[str, Words]:
    """What is compared, by its name in the table."""
    return {
        "autoregressive": Words(0.0),
        "block_diffusion": Words(0.0, _BLOCKS),
        "block_diffusion, vision_efficient=false": Words(0.0, replace(_BLOCKS, vision_efficient=False)),
        "block_diffusion, complementary=false": Words(0.0, replace(_BLOCKS, complementary=False)),
    }


def speaker(depth: int) -> OpenVla:
    """A model of the shipped size with random weights, as training computes with it."""
    torch.manual_seed(0)
    trunk = TrunkConfig(language_depth=depth).to_dict() | {"action_dim": 7}
    model = made(config_for(trunk, 512, (2,), Tokens(horizon=8, bins=256, smoothing=0.0))).bfloat16()
    use_training_operations(model)
    return model


def batch(model: OpenVla, count: int, image_size: int) -> Batch:
    """Noise."""
    random, config = torch.Generator().manual_seed(0), model.config
    return Batch(
        images=torch.randn(count, 1, 3, image_size, image_size, generator=random),
        prompts=torch.randint(5, 500, (count, 12), generator=random),
        states=torch.randn(count, config.state_dim, generator=random),
        actions=torch.rand(count, config.horizon, config.action_dim, generator=random) * 2 - 1,
        keypoints=torch.zeros(count, 0),
    )


def step(model: OpenVla, objective: Words, shown: Batch) -> tuple[int, float]:
    """Bytes kept for the gradients, and the faster of two steps' seconds of processor time."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seconds, total = [], 0
    for _ in range(2):
        start = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            lesson = objective.lesson(model, shown, torch.Generator().manual_seed(0), progress=1.0)
        total = sum(size for place, size in kept.items() if place not in weights)
        kept.clear()
        lesson.loss.backward()
        model.zero_grad()
        seconds.append(time.process_time() - start)
    return total, min(seconds)


def draw(path: Path, actions: int = 4, numbers: int = 3, block: int = 2) -> None:
    """Picture of who sees whom for a chunk of `actions` of `numbers` words, `block` actions to a block."""
    prompt, words = len(_PROMPT), actions * numbers
    seen = visibility(prompt, words, block * numbers, streams=1).int().numpy()
    kind = np.repeat([1, 2, 3], [prompt, words, words])
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(seen * kind, cmap=ListedColormap(_COLOURS), vmin=0, vmax=3)
    total = prompt + 2 * words
    axes.set_xticks(np.arange(-0.5, total), minor=True)
    axes.set_yticks(np.arange(-0.5, total), minor=True)
    axes.grid(which="minor", color="#d9e0e6", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    hidden = ["word" if place % (block * numbers) == 0 else "word or mask" for place in range(words)]
    labels = [*_PROMPT, *["word"] * words, *hidden]
    axes.set_yticks(range(total), labels, fontsize=6)
    axes.set_xticks(range(total), labels, fontsize=6, rotation=90)
    axes.xaxis.tick_top()
    for edge in (prompt, prompt + words):
        axes.axhline(edge - 0.5, color="#1c2733", linewidth=1)
        axes.axvline(edge - 0.5, color="#1c2733", linewidth=1)
    axes.set_xlabel("a row sees the coloured columns: prompt, clean stream, noisy stream", fontsize=8)
    figure.savefig(path, dpi=130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[112, 224])
    parser.add_argument("--language-depth", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="only draw the picture to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
