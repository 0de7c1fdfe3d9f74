"""Distillation: frames with a teacher's answers for actions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla.test_training_run import options as options
from vla.api import InputError, Observation
from vla.policy import VlaPolicy, load_policy
from vla.training import run
from vla.training.mixture import Mixture
from vla.training.teacher import answered


@pytest.fixture
def teacher(options: dict[str, Any]) -> Path:
    """A checkpoint that knows nothing yet but answers."""
    ready = run.prepare(options | {"out": options["out"] + "_teacher"})
    torch.nn.init.normal_(ready.trainer.average.head.net.final_layer.linear.weight, std=0.1)  # type: ignore[union-attr]
    ready.export()
    return ready.checkpoint


def _opened(options: dict[str, Any]) -> Mixture:
    return Mixture.open([options["dataset"]], options["cameras"], options["model"]["horizon"])


def test_answers_are_what_the_policy_says_from_no_noise(
    options: dict[str, Any], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _opened(options)
    learned = answered(data, teacher, [tmp_path], threads=1)
    policy = load_policy(checkpoint=teacher, recipe="none")
    assert isinstance(policy, VlaPolicy)
    monkeypatch.setattr(policy, "noise", lambda seen: torch.zeros(len(seen), *policy.model.noise_shape))
    part, frames = data.parts[0], np.array([3, 17, 29])
    for frame, chunk in zip(frames, learned.parts[0].chunk(frames), strict=True):
        view = {camera: images[frame] for camera, images in part.views.items()}
        text = part.instructions[part.task_index[frame]]
        seen = Observation(images=view, instruction=text, state=part.states[frame], session="one", step=0)
        np.testing.assert_allclose(chunk, policy.infer(seen).actions, atol=1e-6)
    assert not np.allclose(learned.parts[0].chunk(frames), part.chunk(frames), atol=1e-3)


def test_a_teacher_answers_once(options: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    data, cache = _opened(options), tmp_path / "cache"
    told: list[tuple[int, int]] = []
    first = answered(data, teacher, [cache], 1, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(data), len(data))
    assert told == sorted(told)
    told.clear()
    again = answered(data, teacher, [cache], 1, lambda done, total: told.append((done, total)))
    assert not told
    np.testing.assert_array_equal(first.parts[0].chunk(np.arange(30)), again.parts[0].chunk(np.arange(30)))
    assert [path.suffix for path in cache.iterdir()] == [".npy"]


@pytest.mark.parametrize("objective", ["diffusion", "autoregressive"])
def test_a_run_learns_from_its_teacher_and_continues_with_no_other(
    options: dict[str, Any], teacher: Path, tmp_path: Path, objective: str
) -> None:
    tokens = options["tokens"] | {"horizon": 4}
    learning = options | {"teacher": str(teacher), "objective": objective, "tokens": tokens, "keypoint_weight": 0.0}
    learning["dataset"] = str(tmp_path / "data")
    ready = run.prepare(learning)
    shown = ready.trainer._training.training(0, 8, 32)
    other = run.prepare(learning | {"teacher": None, "out": str(tmp_path / "other")})
    assert not torch.equal(shown.actions, other.trainer._training.training(0, 8, 32).actions)
    assert torch.equal(shown.images, other.trainer._training.training(0, 8, 32).images)
    ready.trainer.run(lambda _: None, lambda _: None)
    assert run.prepare(learning).trainer.step == ready.trainer.cloning.steps
    with pytest.raises(InputError, match="other teacher"):
        run.prepare(learning | {"teacher": None})


def test_who_cannot_teach_is_refused(options: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    learning = options | {"dataset": str(tmp_path / "data"), "teacher": str(tmp_path / "nobody")}
    with pytest.raises(InputError, match="nobody"):
        run.prepare(learning)
    speaking = options | {"objective": "autoregressive", "tokens": options["tokens"] | {"horizon": 4}}
    speaker = run.prepare(speaking | {"out": str(tmp_path / "speaker"), "keypoint_weight": 0.0})
    speaker.export()
    with pytest.raises(InputError, match="teacher: a policy of the family cogact can teach, not one of openvla"):
        run.prepare(learning | {"teacher": str(speaker.checkpoint)})
    longer = Mixture(tuple(replace(part, horizon=8) for part in _opened(options).parts))
    with pytest.raises(InputError, match="answers with 4 actions and a chunk to learn has 8"):
        answered(longer, teacher, [tmp_path], threads=1)
    other = Mixture(tuple(replace(part, period=0.5) for part in _opened(options).parts))
    with pytest.raises(InputError, match=r"teacher: the checkpoint has period .* of robot, the dataset 0\.5"):
        answered(other, teacher, [tmp_path], threads=1)
    with pytest.raises(InputError, match="teacher must be the directory of a checkpoint, or null"):
        run.prepare(learning | {"teacher": 3})
