"""Laws of the lean runner's seams and of recordings, on a CPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.vla.family_members import GUIDED, answered, member, relative, robots
from vla import recipe as recipes
from vla.accelerate.execution import lean
from vla.accelerate.lean.decoder import Decoder, Tokens, mask_of, sequence
from vla.accelerate.lean.encoder import encoder_blocks
from vla.accelerate.lean.graphs import Captured, captured
from vla.accelerate.lean.layer import decoder_layer
from vla.accelerate.lean.linear import fused
from vla.accelerate.reduction import plan
from vla.models.cogact import CogAct
from vla.policy import VlaPolicy, load_policy

LEAN = {**GUIDED, "execution": "lean"}


@pytest.fixture(scope="module")
def policy() -> VlaPolicy:
    return member("cogact_vit", LEAN)


@pytest.fixture(scope="module")
def decoder(policy: VlaPolicy) -> Decoder:
    assert isinstance(policy.model, CogAct)
    return Decoder(policy.model.language.llama, decoder_layer, gemma=False, causal=True, positions=64)


def hidden(tokens: int = 9) -> Tensor:
    return torch.randn(1, tokens, 32, generator=torch.Generator().manual_seed(0))


def all_of(hidden: Tensor) -> Tokens:
    return sequence(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool))


@torch.inference_mode()
def test_keeping_every_token_is_the_baseline_bit_for_bit(decoder: Decoder) -> None:
    everything = torch.arange(9)
    kept, _ = decoder.read(all_of(hidden()), 1, {1: [lambda layer, tokens: tokens.kept(everything)]})
    baseline, _ = decoder.read(all_of(hidden()), 1)
    assert torch.equal(kept.hidden, baseline.hidden)


@torch.inference_mode()
def test_taking_tokens_out_is_as_if_nobody_could_see_them_from_there_on(decoder: Decoder) -> None:
    """Before the first layer; those that stay keep their positions."""
    index = torch.tensor([0, 2, 3, 7, 8])
    kept, cache = decoder.read(all_of(hidden()), 1, {0: [lambda layer, tokens: tokens.kept(index)]})
    seen = torch.zeros(1, 9, dtype=torch.bool).index_fill(1, index, True)
    positions = torch.arange(9)[None]
    masked, _ = decoder.read(Tokens(hidden(), positions, seen, padded=True), 1)
    torch.testing.assert_close(kept.hidden, masked.hidden, rtol=1e-5, atol=1e-6)
    assert torch.equal(kept.positions, index[None])
    assert cache[0][0].shape[2] == len(index)


@torch.inference_mode()
def test_the_last_positions_are_the_same_whether_or_not_the_others_are_computed(decoder: Decoder) -> None:
    whole, keys = decoder.read(all_of(hidden()), 9)
    for used in (1, 2, 5):
        some, same_keys = decoder.read(all_of(hidden()), used)
        torch.testing.assert_close(some.hidden, whole.hidden[:, -used:], rtol=1e-5, atol=1e-6)
        assert torch.equal(same_keys[-1][0], keys[-1][0])
    nothing, same_keys = decoder.read(all_of(hidden()), 0)
    assert nothing.hidden.shape == (1, 0, 32)
    assert torch.equal(same_keys[-1][1], keys[-1][1])


@torch.inference_mode()
def test_going_on_from_a_prefix_is_reading_it_all(decoder: Decoder) -> None:
    whole, _ = decoder.read(all_of(hidden()), 2)
    _, cache = decoder.read(all_of(hidden()[:, :7]), 0)
    mask = torch.ones(2, 9, dtype=torch.bool).tril(7)[None, None]
    further, _ = decoder.go_on(hidden()[:, 7:], decoder.turn(torch.tensor([[7, 8]])), mask, cache, 2)
    torch.testing.assert_close(further, whole.hidden, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_a_token_with_a_bias_of_log_n_is_n_of_it_at_one_place() -> None:
    """Where all see all: within a prefix, and for what goes on from it."""
    model: Any = member("pi0", LEAN).model
    decoder = Decoder(model.body.vlm.language_model, decoder_layer, gemma=True, causal=False, positions=64)
    generator = torch.Generator().manual_seed(0)
    distinct = torch.randn(1, 6, model.body.vlm.language_model.config.hidden_size, generator=generator)
    often = torch.tensor([0, 1, 1, 1, 2, 3, 4, 4, 5])
    times, seen = torch.bincount(often)[None], torch.ones(1, 9, dtype=torch.bool)
    counted = Tokens(distinct, torch.arange(6)[None], seen[:, :6], padded=False, bias=times.float().log())
    copied = Tokens(distinct[:, often], often[None], seen, padded=False)
    (one, keys), (other, more_keys) = decoder.read(counted, 6), decoder.read(copied, 9)
    torch.testing.assert_close(one.hidden[:, often], other.hidden, rtol=1e-4, atol=1e-5)
    turn, later = decoder.turn(torch.tensor([[6, 7]])), distinct[:, :2].flip(1)
    assert counted.bias is not None
    mask = mask_of(seen[:, :8], torch.nn.functional.pad(counted.bias, (0, 2)))
    going_on, _ = decoder.go_on(later, turn, mask, keys, 2)
    expected, _ = decoder.go_on(later, turn, None, more_keys, 2)
    torch.testing.assert_close(going_on, expected, rtol=1e-4, atol=1e-5)


def recorded(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """As a CUDA graph does: the same work from and to the same places, and nothing else."""
    outputs = function()

    def replay() -> None:
        for fixed, fresh in zip(leaves(outputs), leaves(function()), strict=True):
            if isinstance(fixed, Tensor):
                fixed.copy_(fresh)

    return replay, outputs


def leaves(nested: Any) -> list[Any]:
    return pytree.tree_leaves(nested)


@pytest.fixture
def always_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are built whatever the prompts are, as on a GPU: what is recorded may not depend on numbers."""
    monkeypatch.setattr(plan, "sequence", lambda *given: replace(sequence(*given), padded=True))


@pytest.mark.usefixtures("always_masked")
@pytest.mark.parametrize("name", ["cogact_vit", "openvla", "pi0"])
def test_recorded_stages_act_as_the_plain_ones(name: str) -> None:
    """New inputs, other lengths of prompts, other sizes of batches, and the first ones again."""
    plain = member(name, LEAN, max_prompt=32)
    graphs = plain.with_recipe(recipes.find(LEAN))
    graphs.stages = captured(plain.stages, recorded)
    plain.stages = replace(plain.stages, plain=plain.stages, few_lengths=True)  # so that its prompts are padded alike
    one, two, three = robots(plain)
    for asked in ([one], [two], [one], [one, two, three], [three], [one]):
        assert relative(answered(graphs, asked), answered(plain, asked)) < 1e-6
    with graphs.plainly(), plain.plainly():
        assert torch.equal(answered(graphs, [one]), answered(plain, [one]))


def test_a_recording_is_made_once_for_each_kind_of_arguments() -> None:
    made = []

    def record(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        made.append(function)
        return recorded(function)

    double = Captured(lambda pair, factor: (2 * pair[0] + pair[1]) * factor, record, set())
    for number in (1.0, 2.0):
        assert double((torch.full((2,), number), torch.ones(2)), 3).tolist() == [(2 * number + 1) * 3] * 2
    assert len(made) == 1
    double((torch.ones(3), torch.ones(3)), 3)
    double((torch.ones(2), torch.ones(2)), 4)
    assert len(made) == 3


def test_what_a_recording_wrote_is_read_where_it_stands() -> None:
    places: set[int] = set()
    first, second = Captured(lambda x: x + 1, recorded, places), Captured(lambda x: 2 * x, recorded, places)
    between = first(torch.zeros(2))
    assert second(between).tolist() == [2, 2]
    ((inputs, _, _),) = second._recordings.values()
    assert inputs[0].data_ptr() == between.data_ptr()
    assert second(first(torch.ones(2))).tolist() == [4, 4]


@pytest.mark.parametrize(("name", "more"), [("cogact_vit", "temporal"), ("openvla", "decoding")])
def test_compiled_and_plain_stages_remember_the_same(name: str, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted in plain stages is what the compiled ones would do next, and a reset reaches both."""
    monkeypatch.setattr(lean, "_compiled", lambda: lean.Functions(encoder_blocks, decoder_layer))
    options = {"temporal": {"method": "static_patches", "budget": 0.5, "relevant": 0.5}, "decoding": "jacobi"}
    policy = member(name, {**GUIDED, "execution": {"method": "lean", "compile": True}, more: options[more]})
    stages, (seen,) = policy.stages, robots(policy, 1)
    assert stages.plain is not None
    assert stages.memory is stages.plain.memory
    assert stages.decoder is stages.plain.decoder
    remembering: Any = stages.memory or stages.decoder
    with policy.plainly():
        policy.infer(seen)
    assert seen.session in remembering._known
    policy.infer(replace(seen, step=seen.step + 1))
    policy.reset(seen.session)
    assert not remembering._known
    towers = [made.encode.__self__.tower for made in (stages, stages.plain)]  # type: ignore[attr-defined]
    if more == "temporal":
        assert towers[0].args[0] is not towers[1].args[0]  # each reads with its own functions


def test_a_compiled_stage_is_its_eager_self_up_to_rounding() -> None:
    compiled = member("cogact_vit", {**GUIDED, "execution": {"method": "lean", "compile": True}})
    (seen,) = robots(compiled, 1)
    got = answered(compiled, [seen])
    with compiled.plainly():
        assert relative(got, answered(compiled, [seen])) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("graphs", [True, False])
def test_recordings_on_a_gpu_act_as_the_plain_stages(graphs: bool) -> None:
    policy = load_policy(device="cuda", recipe={**GUIDED, "execution": {"method": "lean", "graphs": graphs}})
    for asked in (robots(policy, 1), robots(policy, 3), robots(policy, 1)):
        got = answered(policy, asked)
        with policy.plainly():
            assert relative(got, answered(policy, asked)) < 1e-4


def test_an_action_cache_sees_every_step_and_decides(policy: VlaPolicy) -> None:
    """The seam around the blocks: reusing the first step's residual changes actions, recomputing does not."""
    from vla.accelerate.lean.diffusion import LeanDiffusion

    steps: list[int] = []

    def watching(blocks: Callable[[int, Tensor], Tensor]) -> Callable[[int, Tensor], Tensor]:
        def run(index: int, tokens: Tensor) -> Tensor:
            steps.append(index)
            return blocks(index, tokens)

        return run

    assert isinstance(policy.model, CogAct)
    cognition, noise = torch.ones(1, 32), torch.ones(1, 4, 3)
    with torch.inference_mode():
        watched = LeanDiffusion(policy.model.head, 5, 1.5, encoder_blocks, watching).sample(cognition, noise)
        plain = LeanDiffusion(policy.model.head, 5, 1.5, encoder_blocks).sample(cognition, noise)
    assert torch.equal(watched, plain)
    assert steps == [0, 1, 2, 3, 4]


def test_a_second_recipe_of_a_model_takes_no_memory_for_its_weights() -> None:
    maps = [nn.Linear(4, rows) for rows in (3, 5)]
    values = torch.cat([module.weight.detach() for module in maps])
    first, second = fused(*maps), fused(*maps)
    assert torch.equal(first.weights[0], values)
    assert torch.equal(second.weights[0], values)
    assert second.weights[0].data_ptr() == first.weights[0].data_ptr() == maps[0].weight.data_ptr()
    assert fused(maps[1], maps[0]).weights[0].data_ptr() != first.weights[0].data_ptr()
