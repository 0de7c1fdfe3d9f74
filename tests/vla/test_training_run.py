"""`prepare` puts a run together that ships a checkpoint, and refuses wrong options before training starts."""

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import yaml

from tests.vla.clones import NAMES, demonstrations
from tests.vla.runs import small_run
from tests.vla.small import CAMERA
from vla.api import InputError
from vla.checkpoints import native
from vla.training import __main__ as command
from vla.training import run
from vla.training.dataset import Demonstrations
from vla.training.keypoints import KeypointHead


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a tiny run on a dataset in memory; training options are those of the shipped preset."""
    monkeypatch.setattr(Demonstrations, "open", lambda *_: demonstrations())
    return small_run(str(tmp_path / "run"), samples=16)


def test_a_run_ships_its_averaged_weights_and_options(options: dict[str, Any]) -> None:
    ready = run.prepare(options)
    ready.trainer.run(lambda _: None, lambda _: ready.export())
    shipped = native.load(ready.checkpoint)
    assert shipped.training == {"options": options, "finished_steps": 2, "demonstrations": [None]}
    average = ready.trainer.average.state_dict()
    assert all(torch.equal(average[name], tensor) for name, tensor in shipped.model.state_dict().items())
    assert shipped.robots == ready.processing
    assert run.prepare(options).trainer.step == 2


def test_a_checkpoint_goes_on_learning(options: dict[str, Any], tmp_path: Path) -> None:
    first = run.prepare(options)
    first.trainer.run(lambda _: None, lambda _: first.export())
    again = run.prepare(options | {"from": str(first.checkpoint), "out": str(tmp_path / "again"), "model": {}})
    trained, begun = first.trainer.average.state_dict(), again.trainer.average.state_dict()
    assert all(torch.equal(begun[name], tensor) for name, tensor in trained.items())
    assert again.processing == first.processing
    again.trainer.run(lambda _: None, lambda _: again.export())
    assert any(not torch.equal(begun[name], tensor) for name, tensor in trained.items())


def test_a_run_that_goes_on_from_a_run_begins_where_its_learner_stood(options: dict[str, Any], tmp_path: Path) -> None:
    first = run.prepare(options)
    first.trainer.run(lambda _: None, lambda _: first.export())
    further = {"from": options["out"], "out": str(tmp_path / "again"), "seed": 1}
    again = run.prepare(options | further)
    learned, begun = (ready.trainer.learner.state_dict() for ready in (first, again))
    assert all(torch.equal(begun[name], tensor) for name, tensor in learned.items())
    average = native.load(first.checkpoint).model.state_dict()
    assert any(not torch.equal(begun[f"model.{name}"], tensor) for name, tensor in average.items())
    anew = run.prepare(options | further | {"from": str(first.checkpoint), "out": str(tmp_path / "anew")})
    assert not torch.equal(anew.trainer.learner.state_dict()["keypoints.keys.weight"], learned["keypoints.keys.weight"])
    without = run.prepare(options | {"out": str(tmp_path / "without"), "keypoint_weight": 0})
    without.trainer.run(lambda _: None, lambda _: without.export())
    with pytest.raises(InputError, match=r"did not learn the key points .* from=\S+without/checkpoint begins"):
        run.prepare(options | further | {"from": str(tmp_path / "without")})


def test_a_checkpoint_of_another_robot_is_refused(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = run.prepare(options)
    first.export()
    monkeypatch.setattr(Demonstrations, "open", lambda *_: replace(demonstrations(), period=0.5))
    with pytest.raises(InputError, match=r"period 0\.\d+ of robot, the dataset 0\.5"):
        run.prepare(options | {"from": str(first.checkpoint), "out": options["out"] + "_again"})


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["threads"], 0, "threads"),
        (["validation_frames"], 0, "validation_frames"),
        (["threads"], True, "threads"),
        (["draws"], 1.5, "draws"),
        (["draws"], True, "draws"),
        (["seed"], "x", "seed"),
        (["seed"], -1, "seed"),
        (["bf16"], "maybe", "bf16"),
        (["keypoint_weight"], "x", "keypoint_weight"),
        (["keypoint_weight"], -1, "keypoint_weight"),
        (["average_decay"], "x", "average_decay"),
        (["checkpoint_minutes"], None, "checkpoint_minutes"),
        (["validate_every"], 0, "validate_every"),
        (["dataset"], None, "dataset"),
        (["dataset"], [], "dataset"),
        (["dataset"], [3], "dataset"),
        (["wordings"], 3, "wordings"),
        (["wordings"], "nowhere.yaml", "wordings from nowhere.yaml"),
        (["compile"], "yes", "compile"),
        (["out"], 5, "out"),
        (["cameras"], [], "cameras"),
        (["cameras"], [1], "cameras"),
        (["average_decay"], 1.0, "average_decay"),
        (["validation_fraction"], 1.0, r"validation_fraction .* 1\.0"),
        (["validation_fraction"], 0, "validation_fraction must be above 0"),
        (["validation_fraction"], "x", "validation_fraction"),
        (["phases"], [], "phases"),
        (["phases"], 3, "phases"),
        (["phases", 0], 3, "a phase"),
        (["phases", 0, "batch"], None, "batch"),
        (["model"], None, "model"),
        (["model", "horizon"], None, "horizon"),
        (["model", "patch_size"], 0, "patch_size"),
        (["phases", 0, "image_size"], 24, "image_size"),
        (["phases", 0, "image_size"], 16, "last phase"),
        (["phases", 0, "samples"], 17, "multiple of batch"),
        (["phases", 0, "speed"], 1, "speed"),
        (["model", "image_size"], 64, "64 px"),
        (["model", "prediction"], "velocity", "velocity"),
        (["model", "vision_heads"], 5, "vision_heads"),
        (["model", "colour"], 1, "colour"),
        (["model", "max_prompt"], 3, "at most 3"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], path: list[Any], value: Any, named: str) -> None:
    wrong = copy.deepcopy(options)
    inner = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(InputError, match=named):
        run.prepare(wrong)


def test_a_model_for_other_images_is_refused(options: dict[str, Any]) -> None:
    phases = [phase | {"image_size": 64} for phase in options["phases"]]
    with pytest.raises(InputError, match="wants 64"):
        run.prepare(options | {"model": options["model"] | {"image_size": 64}, "phases": phases})


def test_an_option_that_is_missing_is_named(options: dict[str, Any]) -> None:
    del options["seed"]
    with pytest.raises(InputError, match="missing: seed"):
        run.prepare(options)


@pytest.mark.parametrize(
    "change",
    [{"head_depth": 2}, {"prediction": "epsilon"}, {"vision_heads": 3}, {"train_steps": 50}, {"max_prompt": 31}],
)
def test_another_model_does_not_continue_a_run(options: dict[str, Any], change: dict[str, Any]) -> None:
    run.prepare(options).trainer.save()
    with pytest.raises(InputError, match=rf"other model\.{next(iter(change))};"):
        run.prepare(options | {"model": options["model"] | change})


def test_other_data_do_not_continue_a_run(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run.prepare(options).trainer.save()
    with pytest.raises(InputError, match="other validation_fraction;"):
        run.prepare(options | {"validation_fraction": 0.5})
    monkeypatch.setattr(Demonstrations, "open", lambda *_: demonstrations(seed=1))
    with pytest.raises(InputError, match="other dataset,"):
        run.prepare(options)


def test_other_wordings_do_not_continue_a_run(options: dict[str, Any], tmp_path: Path) -> None:
    wordings = [tmp_path / f"{number}.yaml" for number in range(3)]
    for path, others in zip(wordings, (["go to it"], ["go to it"], ["move to it"]), strict=True):
        path.write_text(yaml.safe_dump({demonstrations().instructions[0]: others}))
    run.prepare(options | {"wordings": str(wordings[0])}).trainer.save()
    run.prepare(options | {"wordings": str(wordings[1])})
    with pytest.raises(InputError, match=r"other .*wordings"):
        run.prepare(options | {"wordings": str(wordings[2])})


def test_another_tokenizer_does_not_continue_a_run(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run.prepare(options).trainer.save()
    monkeypatch.setattr(tokenizers.Tokenizer, "to_str", lambda *_: "another")
    with pytest.raises(InputError, match="other tokenizer;"):
        run.prepare(options)


def test_a_state_from_before_wordings_were_told_apart_continues(options: dict[str, Any]) -> None:
    ready = run.prepare(options)
    ready.trainer.save()
    path = Path(options["out"]) / "state.pt"
    state = torch.load(path, weights_only=True)
    del state["identity"]["wordings"], state["identity"]["tokenizer"]
    torch.save(state, path)
    again = run.prepare(options)
    again.trainer.save()
    assert torch.load(path, weights_only=True)["identity"] == ready.trainer._identity
    del state["identity"]["from"]  # what a state always held is still missed
    torch.save(state, path)
    with pytest.raises(InputError, match="other from;"):
        run.prepare(options)


def test_a_run_that_diverges_says_so_and_fails(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = run.prepare(options)
    with torch.no_grad():
        next(ready.trainer.learner.parameters()).fill_(float("nan"))
    monkeypatch.setattr(command, "prepare", lambda _, on_answers: ready)
    monkeypatch.setattr(sys, "argv", ["cadence-train", f"out={options['out']}", "dataset=memory", "tensorboard=false"])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the loss is nan at step 0")
    assert "Traceback" not in said


def test_a_moved_dataset_continues_a_run(options: dict[str, Any]) -> None:
    run.prepare(options).trainer.save()
    options["dataset"] = "elsewhere"
    run.prepare(options | {"threads": 2, "validation_frames": 3})


@pytest.mark.parametrize(("wanted", "measured"), [(1, 1), (3, 3), (4, 4), (5, 5), (384, 5)])
def test_validation_measures_the_frames_asked_for(options: dict[str, Any], wanted: int, measured: int) -> None:
    ready = run.prepare(options | {"validation_frames": wanted})
    frames = ready.trainer._validation_frames
    assert len(set(frames.tolist())) == len(frames) == measured


def test_the_fingerprint_changes_with_every_part_of_the_data() -> None:
    data = demonstrations()
    images = {name: view.copy() for name, view in data.views.items()}
    images[CAMERA][0] += 1
    changed = [
        replace(data, views=images),
        replace(data, actions=data.actions + 1),
        replace(data, states=data.states + 1),
        replace(data, keypoints=data.keypoints + 1),
        replace(data, instructions=["wait"]),
    ]
    assert data.fingerprint() == demonstrations().fingerprint()
    assert len({each.fingerprint() for each in (data, *changed)}) == 6


def test_an_out_that_cannot_be_written_is_named(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to out="):
        run.prepare(options | {"out": str(tmp_path / "file" / "run")})


@pytest.mark.parametrize("names", [(), ("yaw_sin",), ("a_x", "a_z", "a_y"), ("yaw_sin", "a_x", "a_y", "a_z")])
def test_key_points_in_another_order_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="key points"):
        KeypointHead(names, 8)


def test_key_points_at_their_usual_place_cost_nothing() -> None:
    head = KeypointHead(NAMES, 8)
    torch.nn.init.zeros_(head.values.weight)
    torch.nn.init.zeros_(head.values.bias)
    visual = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float32))
    cognition = torch.ones(2, 8)
    assert head.loss(visual, cognition, torch.zeros(2, 5)).item() == 0
    further = torch.tensor([0.1, 0.1, 0.1, 0, 0]).expand(2, -1)
    assert head.loss(visual, cognition, further).item() == pytest.approx(1, abs=1e-5)


def test_the_cognition_feature_decides_which_place_is_meant() -> None:
    """Both frames show the same two things; only the instruction differs, and so does the label."""
    torch.manual_seed(0)
    head = KeypointHead(NAMES, 8)
    visual = torch.randn(1, 2, 8).expand(2, -1, -1)
    cognition, labels = torch.randn(2, 8), torch.tensor([[0.1, 0.1, 0.1, 0, 0], [-0.1, -0.1, -0.1, 0, 0]])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(visual, cognition, labels).backward()
        optimizer.step()
    assert head.loss(visual, cognition, labels).item() < 0.1
