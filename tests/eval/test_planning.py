"""Which variants an evaluation may ask for, checked before anything runs."""

import sys
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.planning import plan
from eval.rollout import Episode
from eval.worlds import grid_size, suite, task_names
from tests.eval.test_command import settings
from vla.api import InputError

SPOON, DRAWER = "widowx_spoon_on_towel", "google_robot_open_drawer"
POINT = f"{Path(__file__).with_name('point_suite.py')}:push"


def planned(**changes: Any) -> list[Episode]:
    return plan(settings(starts="random", episodes=1, **changes), task_names(), grid_size, suite)


def test_a_variant_is_run_once_however_often_it_is_named() -> None:
    episodes = planned(variants=["camera_lower", "base", "camera_lower"])
    assert [episode.variant for episode in episodes] == ["camera_lower", "base"]


def test_a_task_takes_the_variants_that_it_has_in_any_setting() -> None:
    for setting in ("visual_matching", "variant_aggregation"):
        assert [each.variant for each in planned(tasks=[DRAWER], variants="cabinet_2", setting=setting)] == [
            "cabinet_2"
        ]
    assert [episode.variant for episode in planned(tasks=[POINT], variants=["base"])] == ["base"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants": ["base", "nope"]}, f"{SPOON} has no variant 'nope'; allowed: base, .*lighting_darker"),
        ({"variants": ["base", ["base"]]}, "no variant"),
        ({"variants": "cabinet_2"}, f"{SPOON} has no variant 'cabinet_2'"),
        ({"variants": "cabinet_2", "tasks": [DRAWER, SPOON]}, f"{SPOON} has no variant 'cabinet_2'"),
        ({"variants": "lighting_darker", "tasks": [POINT]}, "no variant 'lighting_darker'; allowed: base$"),
        ({"variants": []}, "variants is empty; allowed: null, or some of base, "),
    ],
)
def test_a_variant_that_a_task_does_not_have_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        planned(**changes)


def test_nothing_runs_and_no_folder_is_made_for_an_unknown_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cadence-eval", "policy=hold", "variants=[base,nope]", "episodes=1", "out=a"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "no variant 'nope'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
