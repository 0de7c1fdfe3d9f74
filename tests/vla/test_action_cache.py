"""Laws of reusing what a denoising network's blocks added."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vla.family_members import GUIDED, answered, member, relative, robots
from vla import recipe as recipes
from vla.accelerate.action_cache.adaptive import Adaptive
from vla.accelerate.action_cache.residual import Residual
from vla.accelerate.action_cache.reuse_guidance import ReuseGuidance
from vla.accelerate.action_cache.static import Static
from vla.accelerate.stages import ActionCache, Denoising
from vla.api import InputError
from vla.models.heads.dit import DiT

LEAN = {**GUIDED, "execution": "lean"}
STEPS = 10
Blocks = Callable[[int, Tensor], Tensor]


def drifting(curve: Callable[[float], float]) -> tuple[Blocks, list[int]]:
    """Blocks that add a number which moves with their input, and the steps in which they ran."""
    ran: list[int] = []

    def blocks(index: int, hidden: Tensor) -> Tensor:
        ran.append(index)
        return hidden + torch.full_like(hidden, curve(index))

    return blocks, ran


def walked(cache: ActionCache, curve: Callable[[float], float], steps: int = STEPS) -> tuple[list[int], list[float]]:
    """The steps that ran, and the error of what was added in each, over inputs that move evenly."""
    blocks, ran = drifting(curve)
    cached = cache.wrap(blocks, Denoising(steps, 1))
    errors = []
    for index in range(steps):
        hidden = torch.full((1, 3, 4), 10.0 + index)
        errors.append(float((cached(index, hidden) - hidden - curve(index)).abs().max()))
    return ran, errors


def test_one_summed_residual_is_a_cache_of_every_block() -> None:
    """EfficientVLA keeps the attention and the MLP of each block; on one schedule their sum is all that is used."""
    torch.manual_seed(0)
    net = DiT(action_dim=3, horizon=4, condition_dim=8, width=16, depth=3, heads=2).eval()
    first, second = torch.randn(2, 1, 5, 16)
    kept, hidden = [], first
    for block in net.blocks:
        attention = block.attn(block.norm1(hidden))  # type: ignore[operator]
        hidden = hidden + attention
        mlp = block.mlp(block.norm2(hidden))  # type: ignore[operator]
        hidden, _ = hidden + mlp, kept.append((attention, mlp))
    reused = second
    for attention, mlp in kept:
        reused = reused + attention
        reused = reused + mlp
    residual = Residual(0)
    residual.keep(0, first, hidden)
    torch.testing.assert_close(second + residual.at(1), reused, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("interval", "full"), [(1, list(range(10))), (3, [0, 3, 6, 9]), (5, [0, 5]), (20, [0])])
def test_a_static_cache_runs_every_nth_step(interval: int, full: list[int]) -> None:
    ran, errors = walked(Static(interval), lambda step: 1 + step)
    assert ran == full
    assert errors == pytest.approx([step - max(done for done in full if done <= step) for step in range(STEPS)])


@pytest.mark.parametrize("cache", [Static(4, order=1), Adaptive(100.0)])
def test_extrapolation_is_exact_where_the_residual_moves_evenly(cache: ActionCache) -> None:
    ran, errors = walked(cache, lambda step: 3 - 0.2 * step)
    assert len(ran) < STEPS
    known = ran[1] + 1
    assert max(errors[known:]) < 1e-5


def test_an_adaptive_cache_always_runs_the_first_two_steps_and_the_last() -> None:
    assert walked(Adaptive(1e9), lambda step: 1 + step**2)[0] == [0, 1, 9]
    assert walked(Adaptive(1e9), lambda step: 1 + step, steps=2)[0] == [0, 1]
    assert walked(Adaptive(1e9), lambda step: 1 + step, steps=1)[0] == [0]


def test_an_adaptive_cache_keeps_the_change_below_its_bound() -> None:
    """Where the residual moves evenly with its input, the estimate is the change itself."""
    for bound in (0.02, 0.1, 0.3):
        ran, errors = walked(Adaptive(bound, order=0), lambda step: 20 + step)
        residuals = [20 + max(done for done in ran if done <= step) for step in range(STEPS)]  # of the last full step
        assert all(error / residual <= bound + 1e-5 for error, residual in zip(errors, residuals, strict=True)), bound
        assert len(ran) <= STEPS
    counts = [len(walked(Adaptive(bound), lambda step: 20 + step)[0]) for bound in (0.0, 0.02, 0.1, 0.3)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == STEPS > counts[-1]


def test_reused_guidance_runs_half_of_the_rows_in_between() -> None:
    rows: list[int] = []

    def blocks(index: int, hidden: Tensor) -> Tensor:
        rows.append(len(hidden))
        bias = torch.zeros(len(hidden), 1, 1)
        bias[2:] = 0.5  # the unconditioned half adds more, always by as much
        return hidden * (2 + index) + bias

    cached = ReuseGuidance(2).wrap(blocks, Denoising(4, 2))
    for index in range(4):
        hidden = torch.cat([torch.full((2, 3, 4), 1.0)] * 2)
        expected = hidden * (2 + index)
        expected[2:] += 0.5
        torch.testing.assert_close(cached(index, hidden), expected)
    assert rows == [4, 2, 4, 2]


@pytest.mark.parametrize("cache", [{"method": "static", "interval": 2}, {"method": "adaptive", "bound": 0.1}])
def test_a_cached_head_continues_known_actions_too(cache: dict[str, Any]) -> None:
    plain = member("cogact_vit")
    (seen,) = robots(plain, 1)
    committed = plain.infer(seen).actions[1:3]
    cached = plain.with_recipe(recipes.find({**LEAN, "action_cache": cache}))
    chunk = cached.infer(replace(seen, committed=committed, frozen=1))
    assert (chunk.actions[0] == committed[0]).all()


@pytest.mark.parametrize("name", ["cogact_vit", "pi0"])
def test_a_tight_bound_stays_near_the_whole_computation(name: str) -> None:
    plain = member(name, LEAN)
    tight = plain.with_recipe(recipes.find({**LEAN, "action_cache": {"method": "adaptive", "bound": 1e-4}}))
    seen = robots(plain, 1)
    assert relative(answered(tight, seen), answered(plain, seen)) < 1e-3


@pytest.mark.parametrize(
    ("cache", "complaint"),
    [
        ({"method": "static", "interval": 0}, "interval must be a whole number of at least 1, got 0"),
        ({"method": "static", "order": 2}, "order must be 0 .* or 1 .*, got 2"),
        ({"method": "adaptive", "bound": -0.1}, "bound must be a number of at least 0, got -0.1"),
        ({"method": "adaptive", "bound": float("nan")}, "bound must be a number"),
        ({"method": "reuse_guidance", "interval": 1.5}, "interval must be a whole number"),
        (["static", "adaptive"], "action_cache takes one method, got a list of 2"),
    ],
)
def test_what_is_out_of_range_is_refused(cache: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        recipes.find({**LEAN, "action_cache": cache})


def test_guidance_that_is_not_there_cannot_be_reused() -> None:
    with pytest.raises(InputError, match="reuse_guidance needs guidance: a guidance_scale other than 1"):
        member("cogact_vit", {**LEAN, "guidance_scale": 1.0, "action_cache": "reuse_guidance"})
    with pytest.raises(InputError, match="heads of kind 'flow' have no guidance"):
        member("pi0", {**LEAN, "action_cache": "reuse_guidance"})
    with pytest.raises(InputError, match="it writes words instead of denoising"):
        member("openvla", {**LEAN, "action_cache": "static"})
