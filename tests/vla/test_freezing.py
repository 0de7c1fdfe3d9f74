"""Parts of a checkpoint that a run leaves as they are."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.vla.test_training_run import options as options
from vla.api import InputError
from vla.training import run


@pytest.fixture
def given(options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Options that go on from a checkpoint."""
    first = run.prepare(options)
    first.export()
    return options | {"from": str(first.checkpoint), "out": str(tmp_path / "again"), "model": {}}


@pytest.mark.parametrize("objective", ["diffusion", "block_diffusion"])
def test_frozen_parts_stay_and_the_others_learn(given: dict[str, Any], objective: str) -> None:
    ready = run.prepare(given | {"frozen": ["vision", "projector"], "objective": objective})
    before = {name: tensor.clone() for name, tensor in ready.trainer.average.state_dict().items()}
    ready.trainer.run(lambda _: None, lambda _: None)
    after = ready.trainer.average.state_dict()
    same = {name.split(".")[0] for name in before if torch.equal(before[name], after[name])}
    assert {"vision", "projector"} <= same
    assert not all(torch.equal(before[name], after[name]) for name in before if name.startswith("language."))
    assert all(
        torch.equal(before[name], after[name]) for name in before if name.split(".")[0] in ("vision", "projector")
    )


def test_a_run_with_frozen_parts_continues_as_such_alone(given: dict[str, Any]) -> None:
    frozen = given | {"frozen": ["vision"]}
    ready = run.prepare(frozen)
    ready.trainer.save()
    assert run.prepare(frozen).trainer.step == ready.trainer.step
    with pytest.raises(InputError, match="other frozen"):
        run.prepare(given)


def test_a_run_goes_on_from_one_with_frozen_parts(given: dict[str, Any], tmp_path: Path) -> None:
    ready = run.prepare(given | {"frozen": ["vision"]})
    ready.trainer.run(lambda _: None, lambda _: ready.export())
    further = run.prepare(given | {"from": given["out"], "out": str(tmp_path / "further")})
    learned, begun = (each.trainer.learner.state_dict() for each in (ready, further))
    assert all(torch.equal(begun[name], tensor) for name, tensor in learned.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": ["eyes"]}, "the model has no part 'eyes'; its parts are vision"),
        ({"frozen": "vision"}, "frozen must be"),
        ({"frozen": ["vision"], "from": None}, "from=<directory>"),
    ],
)
def test_what_cannot_be_frozen_is_refused(
    given: dict[str, Any], options: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    changes = changes | ({"model": options["model"]} if "from" in changes else {})
    with pytest.raises(InputError, match=message):
        run.prepare(given | changes)


def test_something_must_be_left_to_train(given: dict[str, Any]) -> None:
    parts = [name for name, _ in run.prepare(given).trainer.average.named_children()]
    with pytest.raises(InputError, match="leaves nothing to train"):
        run.prepare(given | {"frozen": parts})
