"""Datasets of several robots train one model, each frame in the units of its own robot."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla.clones import demonstrations
from tests.vla.small import INSTRUCTION, PROCESSING, TOKENIZER
from vla.api import InputError, Quantity
from vla.tokenizer import prompt_ids
from vla.training.batches import Batches, Prompts
from vla.training.beginning import processing_for
from vla.training.mixture import Mixture

OTHER = "move the square"
FIRST, SECOND = demonstrations(seed=0), demonstrations(episodes=4, seed=1)
FAR = replace(SECOND, robot="far", period=0.5, states=SECOND.states + 10, keypoints=SECOND.keypoints + 3)
MIXTURE = Mixture((FIRST, replace(FAR, instructions=[OTHER])))
LAST = np.array([len(MIXTURE) - 1, 0, len(FIRST), len(FIRST) - 1])


def batches(mixture: Mixture) -> Batches:
    processing = {robot: processing_for(parts, 32) for robot, parts in mixture.by_robot().items()}
    words = {text: [prompt_ids(TOKENIZER, PROCESSING.text(text), 32)[0]] for text in mixture.instructions}
    return Batches(mixture, np.arange(len(mixture)), processing, Prompts(words, pad_id=0), seed=0)


def alone(part: Any, rows: list[int]) -> Any:
    return batches(Mixture((part,))).of(np.array(rows), 32)


def test_frames_are_those_of_their_dataset_in_the_order_asked_for() -> None:
    together = batches(MIXTURE).of(LAST, 32)
    first, far = alone(FIRST, [0, len(FIRST) - 1]), alone(MIXTURE.parts[1], [len(FAR) - 1, 0])
    for name in ("images", "states", "actions", "keypoints"):
        got, ours, theirs = (getattr(batch, name) for batch in (together, first, far))
        torch.testing.assert_close(got[[1, 3]], ours)
        torch.testing.assert_close(got[[0, 2]], theirs)


def test_robots_have_statistics_of_their_own() -> None:
    everything = batches(MIXTURE).of(np.arange(len(MIXTURE)), 32)
    for part in (slice(0, len(FIRST)), slice(len(FIRST), None)):
        assert everything.states is not None
        assert everything.states[part].abs().median() < 1
        torch.testing.assert_close(everything.keypoints[part].mean(0), torch.zeros(5), atol=1e-5, rtol=0)


def test_a_split_keeps_every_dataset_on_both_sides() -> None:
    training, held_out = MIXTURE.split(0.3)
    assert sorted([*training, *held_out]) == list(range(len(MIXTURE)))
    for side in (training, held_out):
        assert {part.robot for part, _, _ in MIXTURE.located(side)} == {"robot", "far"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"robot": "other", "views": {}}, "number of cameras"),
        ({"period": 0.5}, "datasets of robot differ in their period"),
        ({"state_quantities": (Quantity("height", "m"), Quantity("depth", "m"))}, "state_quantities"),
        ({"keypoint_quantities": ()}, "key points"),
    ],
)
def test_datasets_that_cannot_train_one_model_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Mixture((FIRST, replace(SECOND, **change)))


def test_half_of_the_instructions_are_reworded_in_training_and_none_otherwise() -> None:
    wordings = [torch.tensor([number, 9][: 1 + number % 2]) for number in range(4)]
    prompts = Prompts({INSTRUCTION: wordings, OTHER: [torch.tensor([7, 7, 7])]}, pad_id=0)
    assert prompts.of([INSTRUCTION, OTHER], None).tolist() == [[0, 0, 0], [7, 7, 7]]
    drawn = prompts.of([INSTRUCTION] * 2000, np.random.default_rng(0))[:, 0].bincount() / 2000
    torch.testing.assert_close(drawn, torch.tensor([0.625, 0.125, 0.125, 0.125]), atol=0.04, rtol=0)
