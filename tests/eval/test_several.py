"""Laws of evaluating several recipes at once, and of the front of those that no other one beats in both."""

import importlib.util
import io
import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from cadence_configs.command import CONFIGS, WRONG_USAGE, keys
from eval.settings import Settings
from eval.several import evaluate_all, runs_of
from tests.eval.test_compare import run
from vla.api import InputError

_SPEC = importlib.util.spec_from_file_location("pareto", CONFIGS.parent / "benchmarks" / "pareto.py")
assert _SPEC is not None
assert _SPEC.loader is not None
pareto: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pareto)


def values(**changes: Any) -> dict[str, Any]:
    """What the command reads."""
    file: Any = OmegaConf.load(CONFIGS / "eval.yaml")
    return {**{key: file[key] for key in keys("eval") if key != "out"}, "tasks": ["toy"], "out": "runs/x", **changes}


def test_one_recipe_is_one_run_where_it_was() -> None:
    for accel in ("none", ["none"]):
        ((name, settings),) = runs_of(values(accel=accel)).items()
        assert (name, settings.accel, settings.out) == ("", "none", "runs/x")


def test_each_of_several_recipes_has_a_folder_and_the_same_starts(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("denoising_steps: 10\nguidance_scale: 1.0\n")
    found = runs_of(values(accel=["none", "unguided", str(own)], starts="random", seed=3))
    assert {name: settings.out for name, settings in found.items()} == {
        "none": "runs/x/none",
        "unguided": "runs/x/unguided",
        "mine": "runs/x/mine",
    }
    assert {(settings.starts, settings.seed) for settings in found.values()} == {("random", 3)}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"accel": ["none", "warp"]}, "unknown recipe 'warp' in accel; allowed: none, "),
        ({"accel": ["none", "unguided", "none"]}, "accel names none more than once"),
        ({"accel": []}, "accel is empty"),
        ({"accel": ["none", "unguided"], "policy": "expert"}, "several recipes need policy=served or local"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        runs_of(values(**changes))


def test_recipes_are_compared_with_the_first_once_all_are_done(tmp_path: Path) -> None:
    found = runs_of(values(accel=["none", "unguided"], out=str(tmp_path)))
    console, ran = Console(file=io.StringIO(), width=200), []

    def evaluate(settings: Settings, _: Console) -> int:
        ran.append(settings.accel)
        solved = {"none": lambda number: number < 20, "unguided": lambda number: number < 12}[settings.accel]
        run(Path(settings.out), solved, tasks=("toy",))
        return 0

    assert evaluate_all(found, evaluate, tmp_path, ["cadence-eval"], console) == 0
    assert ran == ["none", "unguided"]
    (figures,) = json.loads((tmp_path / "compare.json").read_text())["comparisons"]
    assert figures["overall"]["difference"] == pytest.approx(-8 / 24)
    assert figures["overall"]["p_value"] == pytest.approx(2 * 0.5**8)  # eight starts lost, none won
    assert not figures["overall"]["non_inferiority"]["non_inferior"]


def test_unfinished_recipes_are_not_compared(tmp_path: Path) -> None:
    found = runs_of(values(accel=["none", "unguided"], out=str(tmp_path)))
    console = Console(file=io.StringIO(), width=200)
    assert evaluate_all(found, lambda settings, _: settings.accel == "unguided", tmp_path, [], console) == 1
    assert not (tmp_path / "compare.json").exists()


@pytest.mark.parametrize(("ended", "status"), [(1, 1), (WRONG_USAGE, 0)])
def test_a_recipe_that_was_not_run_to_its_end_is_said_by_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int, status: int
) -> None:
    for name in ("none", "unguided"):
        run(tmp_path / name, lambda number: number < 12, tasks=("toy",))
    counts = {"gflops": 1.5, "parameters": 4_000_000}
    rows = [{"recipe": name, "stages_ms": {"total": {"p50": 5.0}}, **counts} for name in ("none", "unguided")]
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "profile.json").write_text(json.dumps({"rows": rows}))
    statuses = {"accel=fast": ended}
    monkeypatch.setattr(
        pareto.subprocess,
        "run",
        lambda command, **_: CompletedProcess(command, statuses.get(command[1], 0), stderr="it broke"),
    )
    monkeypatch.setattr("sys.argv", ["pareto", str(tmp_path), "--recipes", "none", "unguided", "fast"])
    assert pareto.main() == status


def point(recipe: str, milliseconds: float, success: float) -> Any:
    return pareto.Point(recipe, milliseconds, success, success - 0.05, success + 0.05, 1.5, 4_000_000, 207)


def test_the_front_has_what_no_other_recipe_beats_in_both() -> None:
    points = [point("slow", 9, 0.8), point("best", 5, 0.9), point("fast", 2, 0.6), point("bad", 3, 0.5)]
    points += [point("tied", 2, 0.4)]
    found = pareto.marked(points)
    assert [each.recipe for each in found] == ["fast", "tied", "bad", "best", "slow"]
    assert [each.recipe for each in found if each.on_front] == ["fast", "best"]
    assert len(pareto.draw(found).axes) == 1
    assert pareto.table(found).count("yes") == 2
