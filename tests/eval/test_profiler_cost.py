"""Laws of counting: what the profiler counts can be computed by hand."""

from pathlib import Path

import pytest
import torch

from eval.profiler import cost
from tests.vla.small import observation, save_small, small_config
from vla.policy import VlaPolicy, load_policy

RECIPES = ("reference", "exact")
UNGUIDED = {"denoising_steps": 10, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("profiler") / "checkpoint")


@pytest.fixture(scope="module")
def policy(checkpoint: Path) -> VlaPolicy:
    return load_policy(checkpoint=checkpoint, recipe=UNGUIDED)


def transformer_flops(tokens: int, width: int, depth: int, mlp: int) -> int:
    """Operations of pre-norm layers: four square projections, scores and mixture, an MLP of `mlp` weights."""
    return depth * (2 * tokens * (4 * width**2 + mlp) + 4 * tokens**2 * width)


def expected_flops(words: int) -> dict[str, int]:
    """Every matrix product and convolution of one answer of the small model, ten steps without guidance."""
    c = small_config()
    patches = c.visual_tokens
    patching = 2 * patches * 3 * c.patch_size**2 * c.vision_width
    projector = 2 * patches * (c.vision_width * c.language_width + c.language_width**2)
    vision = transformer_flops(1 + patches, c.vision_width, c.vision_depth, 8 * c.vision_width**2)
    sequence = 1 + patches + 1 + words + 1
    language = transformer_flops(
        sequence, c.language_width, c.language_depth, 3 * c.language_width * c.language_mlp_width
    )
    state = 2 * c.state_dim * c.language_width
    dit = transformer_flops(1 + c.horizon, c.head_width, c.head_depth, 8 * c.head_width**2)
    embedding = 2 * (256 * c.head_width + c.head_width**2 + c.language_width * c.head_width)
    ends = 2 * (2 * c.horizon + 1) * c.action_dim * c.head_width
    return {
        "encode": patching + vision + projector,
        "prefill": language + state,
        "head": 10 * (dit + embedding + ends),
    }


def test_operations_are_what_the_shapes_say(policy: VlaPolicy) -> None:
    counted = cost.count(policy, observation())
    assert counted.flops == expected_flops(words=19)
    assert counted.flops_by_dtype == {torch.float32: sum(counted.flops.values())}


def test_guidance_doubles_the_head_and_nothing_else(checkpoint: Path, policy: VlaPolicy) -> None:
    plain = cost.count(policy, observation()).flops
    guided = cost.count(load_policy(checkpoint=checkpoint, recipe="none"), observation()).flops
    assert (guided["encode"], guided["prefill"]) == (plain["encode"], plain["prefill"])
    assert 1.8 * plain["head"] < guided["head"] <= 2 * plain["head"]


def test_operations_are_told_apart_by_what_they_are_done_in(checkpoint: Path) -> None:
    counted = cost.count(load_policy(checkpoint=checkpoint, dtype="bfloat16"), observation())
    head = counted.flops["head"]
    assert counted.flops_by_dtype == {torch.float32: head, torch.bfloat16: sum(counted.flops.values()) - head}


def test_an_answer_reads_the_weights_that_it_needs(policy: VlaPolicy) -> None:
    """All but most rows of the word table and the part of the head that nothing uses."""
    read = cost.count(policy, observation()).read_bytes
    words = policy.model.get_parameter("language.llama.embed_tokens.weight").nbytes
    unused = cost.weight_bytes(policy.model.get_submodule("head.net.history_embedder"))
    needed = cost.weight_bytes(policy.model) - words - unused
    given = sum(image.nbytes for image in observation().images.values())
    assert needed < read < needed + words / 2 + 8 * given


@pytest.mark.parametrize(
    ("extents", "expected"),
    [([], 0), ([(10, 5), (20, 5)], 10), ([(10, 5), (12, 8)], 10), ([(10, 20), (12, 3), (40, 1)], 21)],
)
def test_bytes_that_overlap_count_once(extents: list[tuple[int, int]], expected: int) -> None:
    assert cost.covered(extents) == expected


def test_operations_of_stages_are_counted_whatever_runs_them(checkpoint: Path) -> None:
    """`exact` leaves out what nobody reads: it never does more than `reference`, and both read the same images."""
    by_recipe = {name: cost.count(load_policy(checkpoint=checkpoint, recipe=name), observation()) for name in RECIPES}
    reference, exact = by_recipe["reference"].flops, by_recipe["exact"].flops
    assert exact["encode"] == reference["encode"]
    assert 0 < exact["prefill"] < reference["prefill"]
    assert 0 < exact["head"] < reference["head"]
