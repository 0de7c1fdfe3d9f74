"""Other words for an instruction come from patterns."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import envs
import envs.tasks
from vla.api import InputError
from vla.training.wordings import Wordings

PHRASING = Path(__file__).parents[2] / "configs" / "phrasing"
TRAINING, HELD_OUT = (Wordings.read(PHRASING / f"{name}.yaml") for name in ("training", "held_out"))


@pytest.mark.parametrize("task", envs.SIMPLER)
def test_every_instruction_of_the_suite_has_others_and_held_out_ones_are_not_trained_on(task: str) -> None:
    for goal in envs.tasks.find(task).official_start(0).goals:
        trained, held_out = TRAINING.of(goal.instruction), HELD_OUT.of(goal.instruction)
        assert len(trained) >= 5
        assert len(held_out) >= 3
        assert not {goal.instruction, *trained} & set(held_out)
        assert len(set(held_out)) == len(held_out)


def test_names_stand_for_any_words() -> None:
    wordings = Wordings({"move {thing} near {place}": ["bring {place} a {thing}"], "move {thing}": ["take {thing}"]})
    assert wordings.of("move blue can near the red apple") == ["bring the red apple a blue can"]
    assert wordings.of("move it") == ["take it"]
    assert wordings.of("open it") == []


@pytest.mark.parametrize(
    "content", [None, [], {"open {which}": "open"}, {"open {which}": ["open"]}, {"open": [3]}, {"open": ["{it}"]}]
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "wordings.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError):
        Wordings.read(path)
