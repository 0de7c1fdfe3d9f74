"""Training: a killed run ends with the weights of an undisturbed one, and wrong options are named before it starts."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.vla.clones import PHASES, batches, cloning, demonstrations, trainer
from tests.vla.small import small_model
from vla.api import InputError
from vla.training.attention import use_training_operations
from vla.training.behaviour_cloning import Diverged, Trainer
from vla.training.objectives import Diffusion
from vla.training.optimizer import Optimizer, cosine
from vla.training.schedule import WARMUP_STEPS, Phase


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


def kill_after(step: int) -> Callable[[dict[str, float]], None]:
    def on_step(losses: dict[str, float]) -> None:
        if losses["step"] == step:
            raise Killed

    return on_step


def finish(run: Trainer) -> dict[str, torch.Tensor]:
    run.run(lambda _: None, lambda _: None)
    return run.average.state_dict()


def edit_state(out: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    state = torch.load(out / "state.pt", weights_only=True)
    edit(state)
    torch.save(state, out / "state.pt")


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("killed_at", [1, 4, 7])
def test_a_killed_run_ends_with_the_same_weights_and_log(tmp_path: Path, killed_at: int, bf16: bool) -> None:
    undisturbed = finish(trainer(tmp_path / "a", cloning(bf16=bf16, minutes=0)))
    with pytest.raises(Killed):
        trainer(tmp_path / "b", cloning(bf16=bf16, minutes=0)).run(kill_after(killed_at), lambda _: None)
    again = trainer(tmp_path / "b", cloning(bf16=bf16, minutes=0))
    assert again.resume() == (killed_at > 1)  # a kill during step 1 comes before the first save
    assert again.step == killed_at - 1
    resumed = finish(again)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in undisturbed.items())
    assert logged(tmp_path / "a") == logged(tmp_path / "b")


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    weights = finish(trainer(tmp_path, cloning()))
    again = trainer(tmp_path, cloning())
    assert again.resume()
    resumed = finish(again)
    assert len(logged(tmp_path)) == again.cloning.steps == 9
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())


def test_other_options_do_not_continue_a_run(tmp_path: Path) -> None:
    finish(trainer(tmp_path, cloning()))
    with pytest.raises(InputError, match="bf16"):
        trainer(tmp_path, cloning(bf16=False)).resume()
    with pytest.raises(InputError, match="other dataset;"):
        trainer(tmp_path, cloning(), dataset="circles").resume()


def test_a_state_that_does_not_know_its_data_is_continued(tmp_path: Path) -> None:
    finish(trainer(tmp_path, cloning()))
    edit_state(tmp_path, lambda state: state.pop("identity"))
    assert trainer(tmp_path, cloning(), dataset="circles").resume()


def test_phases_may_change_until_they_begin(tmp_path: Path) -> None:
    other_end = (PHASES[0], replace(PHASES[1], samples=8))
    with pytest.raises(Killed):
        trainer(tmp_path, cloning(minutes=0)).run(kill_after(4), lambda _: None)
    assert trainer(tmp_path, cloning(other_end, minutes=0)).resume()
    with pytest.raises(InputError, match="phases"):
        trainer(tmp_path, cloning((replace(PHASES[0], batch=8), PHASES[1]), minutes=0)).resume()
    finish(trainer(tmp_path, cloning(minutes=0)))
    with pytest.raises(InputError, match="phases"):
        trainer(tmp_path, cloning(other_end, minutes=0)).resume()


def test_a_phase_that_has_begun_cannot_be_left_out(tmp_path: Path) -> None:
    first, second = replace(PHASES[0], samples=8), PHASES[1]
    with pytest.raises(Killed):
        trainer(tmp_path, cloning((first, second), minutes=0)).run(kill_after(4), lambda _: None)
    with pytest.raises(InputError, match="phases"):
        trainer(tmp_path, cloning((first,), minutes=0)).resume()
    assert trainer(tmp_path, cloning((first, second, second), minutes=0)).resume()


def test_a_cut_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"state\.pt is damaged"):
        trainer(tmp_path, cloning()).resume()


def test_a_foreign_archive_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "state.pt", "w") as archive:
        archive.writestr("note", "hello")
    with pytest.raises(InputError, match=r"state\.pt is damaged"):
        trainer(tmp_path, cloning()).resume()


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda state: state.pop("step"), "step missing"),
        (lambda state: state.update(learner=3), "learner missing or of a wrong kind"),
        (lambda state: state["average"].popitem(), "Missing key|Error"),
        (lambda state: state["optimizer"].pop(), "shorter"),
    ],
)
def test_an_incomplete_state_is_named(tmp_path: Path, edit: Callable[[dict[str, Any]], object], named: str) -> None:
    trainer(tmp_path, cloning()).save()
    edit_state(tmp_path, edit)
    with pytest.raises(InputError, match=rf"state\.pt is damaged.*({named})"):
        trainer(tmp_path, cloning()).resume()


def test_the_policy_imitates_what_it_was_shown(tmp_path: Path) -> None:
    run = trainer(tmp_path, cloning((Phase(32, 3200, 16, 2e-3, 0.0),), bf16=False))
    run._validation_frames = np.arange(25)
    run.step = 1
    before = run.validation_error()
    run.step = 0
    finish(run)
    losses = [line["action_loss"] for line in logged(tmp_path)]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert run.validation_error() < 0.7 * before


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    run = trainer(tmp_path, cloning())
    with torch.no_grad():
        next(run.learner.parameters()).fill_(float("nan"))
    run.save()
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(Diverged, match="the loss is nan at step 0; the state saved last"):
        finish(run)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_training_operations_change_nothing_but_rounding() -> None:
    model, changed = small_model(), small_model()
    use_training_operations(changed)
    inputs = (torch.randn(2, 1, 3, 32, 32), torch.tensor([[0, 5, 6], [7, 8, 9]]), torch.rand(2, 2))
    with torch.no_grad():
        results = [
            each.head.sample(each.prefill(each.encode(inputs[0]), *inputs[1:]), torch.ones(2, 4, 3), 5, 1.0)
            for each in (model, changed)
        ]
    torch.testing.assert_close(*results, atol=5e-3, rtol=5e-3)
    assert model.state_dict().keys() == changed.state_dict().keys()


def test_what_the_head_learns_from_is_what_it_is_given_in_use() -> None:
    batch = batches(demonstrations(), np.arange(30)).training(0, 8, 32)
    model = small_model()
    lesson = Diffusion(draws=1).lesson(model, batch, torch.Generator().manual_seed(0), 0.0)
    with torch.no_grad():
        cognition = model.prefill(model.encode(batch.images), batch.prompts, batch.states)
    torch.testing.assert_close(lesson.cognition, cognition, atol=1e-5, rtol=1e-5)


def test_every_parameter_has_one_optimizer() -> None:
    model = small_model()
    trained = [
        id(parameter)
        for optimizer in Optimizer([model])._optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize(("scale", "expected"), [(1e6, 1.0), (1e-3, 1e-3 * 12**0.5)])
def test_gradients_are_clipped_to_norm_one_over_all_parameters(scale: float, expected: float) -> None:
    layer = nn.Linear(3, 3)
    optimizer = Optimizer([layer])
    seen: list[torch.Tensor] = []

    def remember(each: torch.optim.Optimizer, *_: Any) -> None:
        seen.extend(parameter.grad.flatten() for group in each.param_groups for parameter in group["params"])

    for each in optimizer._optimizers:
        each.register_step_pre_hook(remember)
    (layer(torch.ones(1, 3)).sum() * scale).backward()  # each of the 12 gradients is `scale`
    optimizer.step(0.0)
    assert torch.cat(seen).norm().item() == pytest.approx(expected, rel=1e-5)
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_batches_depend_on_seed_and_number_alone() -> None:
    data, frames = demonstrations(), np.arange(20)
    first, second = batches(data, frames), batches(data, frames)
    first.training(0, 8, 32)
    same = [each.training(16, 8, 32).images for each in (first, second)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], first.training(24, 8, 32).images)
    assert not torch.equal(same[0], batches(data, frames, seed=1).training(16, 8, 32).images)


def test_an_epoch_shows_every_frame_once() -> None:
    data, frames = demonstrations(), np.arange(5, 25)
    drawn = batches(data, frames)
    states = torch.cat([drawn.training(start, 4, 32).states for start in range(0, 20, 4)])  # type: ignore[arg-type]
    expected = drawn.of(frames, 32).states
    assert expected is not None
    assert torch.equal(states.sort(dim=0).values, expected.sort(dim=0).values)


def test_smaller_images_are_means_of_the_larger() -> None:
    data = demonstrations()
    small, large = (batches(data, np.arange(3)).of(np.arange(3), size).images for size in (16, 32))
    means = nn.functional.avg_pool2d(large.flatten(0, 1), 2).unflatten(0, (3, 1))
    torch.testing.assert_close(small, means, atol=2 / 255 / 0.25, rtol=0)  # rounded down to a whole colour


def test_the_learning_rate_warms_up_and_falls_within_each_phase() -> None:
    how = replace(cloning(), phases=(Phase(16, 4000, 4, 1e-2, 5e-3), Phase(32, 4000, 8, 4e-3, 0.0)))
    rates = [how.at(step)[2] for step in range(how.steps)]
    assert rates[0] == pytest.approx(1e-2 / WARMUP_STEPS)
    assert rates[WARMUP_STEPS:1000] == sorted(rates[WARMUP_STEPS:1000], reverse=True)
    assert rates[1000] == pytest.approx(4e-3)
    assert rates[-1] < 1e-5
    assert [how.at(step)[1] for step in (0, 1, 1000, 1001)] == [0, 4, 4000, 4008]
    with pytest.raises(InputError, match="1500"):
        how.at(1500)


def test_cosine_goes_from_first_to_last() -> None:
    assert [cosine(progress, 2.0, 1.0) for progress in (0, 0.5, 1)] == pytest.approx([2.0, 1.5, 1.0])


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 25},
        {"batch": 0},
        {"image_size": -16},
        {"final_learning_rate": 1.0},
        {"batch": None},
        {"samples": True},
        {"learning_rate": "fast"},
        {"learning_rate": float("nan")},
    ],
)
def test_wrong_phases_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        replace(PHASES[0], **change)
