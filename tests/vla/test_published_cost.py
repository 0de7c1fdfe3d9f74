"""What EfficientVLA leaves of CogACT-Base's operations, counted at the published shapes without any weights."""

from functools import cache
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vla import recipe as recipes
from vla.checkpoints.weights import empty
from vla.composing import built, fitted, of_random, reweighted
from vla.models import family

WORDS = 23  # with the image, state-free ending and first word: 282 tokens, as published
PUBLISHED = 405.50 + 3726.55 + 57.96  # [GFLOP] vision, language and action of CogACT-Base (EfficientVLA, table 1)
WIDTH, MLP, TOKENS, KEPT = 4096, 11008, 282, 56


@cache
@torch.inference_mode()
def gflops(recipe: str) -> dict[str, float]:
    """Of each stage of CogACT-Base, [GFLOP]."""
    cogact = family.find("cogact")
    model = empty(cogact, cogact.presets["cogact_base"])
    chosen = fitted(recipes.find(recipe), model, of_random(model))
    counted, made = {}, torch.empty(0)
    with torch.device("meta"):
        stages = built(reweighted(model, chosen), chosen)
        prompt, noise = torch.ones(1, WORDS, dtype=torch.long), torch.empty(1, 16, 7)
        images: Any = torch.empty(1, 1, 6, 224, 224)
        runs = {
            "encode": lambda given: stages.encode(given),
            "prefill": lambda given: stages.prefill(given, prompt, None),
            "head": lambda given: stages.act(given, noise),
        }
        made = images
        for stage, run in runs.items():
            with FlopCounterMode(display=False) as counter:
                made = run(made)
            counted[stage] = counter.get_total_flops() / 1e9
    return counted


def unread(sequence: int, mlp: float) -> float:
    """[GFLOP] of the last layer's other tokens, which nobody reads: lean stages leave them out."""
    return 2 * (sequence - 1) * (2 * WIDTH**2 + 3 * WIDTH * mlp) / 1e9


def test_efficientvla_leaves_28_to_30_percent_of_cogact_base() -> None:
    """28.9% in the paper's table 2; ours has less still, as in the last layer only the last token is computed."""
    baseline = sum(gflops("exact").values()) + unread(TOKENS, MLP)
    counted = sum(gflops("efficientvla").values())
    assert baseline == pytest.approx(PUBLISHED, rel=0.01)
    assert 0.28 < (counted + unread(TOKENS - 256 + KEPT, 0.75 * MLP)) / baseline < 0.30
    assert 0.27 < counted / baseline < 0.28


@pytest.mark.parametrize(("recipe", "steps"), [("exact", 10), ("static_cache", 2)])
def test_a_cached_head_runs_its_blocks_in_the_full_steps_only(recipe: str, steps: int) -> None:
    assert gflops(recipe)["head"] == pytest.approx(57.96 * steps / 10, rel=0.01)
