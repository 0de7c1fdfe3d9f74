"""Processes that train together: the mean of their gradients, equal weights, and no process that waits for ever."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vla.clones import demonstrations
from tests.vla.runs import small_run
from vla.api import InputError
from vla.training import run
from vla.training.dataset import Demonstrations
from vla.training.team import LostMember, Team, helped


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of a run of four steps by two processes, in a folder that is named from here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Demonstrations, "open", lambda *_: demonstrations())
    return small_run("run", samples=32) | {"processes": 2}


def work(options: dict[str, Any], number: int) -> None:
    """What another process does: it trains on the same data, made anew."""
    Demonstrations.open = staticmethod(lambda *_: demonstrations())  # type: ignore[method-assign, assignment]
    run.prepare(options, number).trainer.run(lambda _: None, lambda _: None)


def give_up(options: dict[str, Any], number: int) -> None:
    """What a process does that ends too early."""
    with Team(number, 2, Path(options["out"]) / "meeting").joined():
        pass


def give_gradients(options: dict[str, Any], number: int) -> None:
    """What a process does that has a gradient of its own."""
    parameter = torch.zeros(3, requires_grad=True)
    parameter.grad = torch.tensor([1.0, 2.0, 3.0])
    with Team(number, 2, Path(options["meeting"])).joined():
        Team(number, 2).average([parameter])


def trained(options: dict[str, Any], stop_after: int | None = None) -> dict[str, torch.Tensor]:
    """The leader's weights after a run, or after as many steps of it."""
    trainer = run.prepare(options).trainer

    def on_step(losses: dict[str, float]) -> None:
        if losses["step"] == stop_after:
            trainer.save()
            raise KeyboardInterrupt

    with helped(trainer.team, work, options):
        trainer.run(on_step, lambda _: None)
    return copy.deepcopy(trainer.learner.state_dict())


def test_gradients_become_their_mean(tmp_path: Path) -> None:
    team = Team(0, 2, tmp_path / "meeting")
    with_gradient, without = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    with_gradient.grad = torch.tensor([3.0, 2.0, 1.0])
    with helped(team, give_gradients, {"meeting": str(team.meeting)}), team.joined():
        team.average([with_gradient, without])
    assert with_gradient.grad.tolist() == [2.0, 2.0, 2.0]
    assert without.grad is None
    assert list(tmp_path.iterdir()) == []


def test_alone_nothing_is_averaged() -> None:
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.ones(1)
    with Team().joined():
        Team().average([parameter])
    assert parameter.grad.tolist() == [1.0]


def test_a_team_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    options: dict[str, Any], tmp_path: Path
) -> None:
    whole = trained(options | {"out": str(tmp_path / "whole")})
    with pytest.raises(KeyboardInterrupt):
        trained(options, stop_after=2)
    continued = trained(options)
    assert all(torch.equal(continued[name], tensor) for name, tensor in whole.items())
    lines = (Path(options["out"]) / "train.jsonl").read_text().splitlines()
    assert len(lines) == 4


def test_a_member_that_ends_too_early_is_missed(options: dict[str, Any]) -> None:
    trainer = run.prepare(options).trainer
    with (
        pytest.raises(LostMember, match="of the 2 that train together has ended"),
        helped(trainer.team, give_up, options),
    ):
        trainer.run(lambda _: None, lambda _: None)


def test_a_batch_that_cannot_be_shared_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="batch must be a multiple of processes = 3, got 8"):
        run.prepare(options | {"processes": 3})


def test_processes_share_a_processor_only(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="processes=2 train together on device=cpu only"):
        run.prepare(options | {"device": "cuda"})
