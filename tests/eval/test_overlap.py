"""Tasks that share starts: each start is evidence once."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from eval.compare.comparison import Outcomes, compared, gather
from eval.compare.runs import Run
from eval.overlap import Start, distinct, from_json, shared_starts
from eval.paired import mcnemar_exact, suite_interval
from eval.planning import resolve
from eval.results import Record
from eval.scoring import scored
from eval.summary import mean_of, remarks
from eval.worlds import grid_size, official_starts, task_names
from tests.eval.records import broken, record

SETTING = "visual_matching"
CAN, LYING = "google_robot_pick_coke_can", "google_robot_pick_horizontal_coke_can"
DRAWER, TOP, MIDDLE = (f"google_robot_open_{name}" for name in ("drawer", "top_drawer", "middle_drawer"))
PARTS = {f"google_robot_pick_{way}_coke_can" for way in ("horizontal", "vertical", "standing")}
PARTS |= {f"google_robot_{verb}_{which}_drawer" for verb in ("open", "close") for which in ("top", "middle", "bottom")}
PARTS |= {"google_robot_move_near_v0", "google_robot_move_near_v1", "google_robot_place_in_closed_top_drawer"}


def starts(task: str, count: int) -> list[Start]:
    return [Start(task, SETTING, number) for number in range(count)]


def shared(*tasks: tuple[str, int]) -> dict[Start, Start]:
    return shared_starts([start for task in tasks for start in starts(*task)], official_starts)


def episodes(task: str, count: int) -> list[Record]:
    return [record(number, task=task) for number in range(count)]


def suite_of(name: str) -> list[tuple[str, int]]:
    return [(task, grid_size(task)) for task in resolve([name], task_names())]


def test_a_part_of_a_task_has_the_starts_of_the_whole() -> None:
    found = shared((DRAWER, 27), (MIDDLE, 9))
    assert set(found) == set(starts(MIDDLE, 9))
    assert all(same.task == DRAWER for same in found.values())
    assert len(set(found.values())) == 9


def test_only_starts_that_were_run_are_shared() -> None:
    assert set(shared((DRAWER, 9), (TOP, 3))) == set(starts(TOP, 3))
    assert shared((DRAWER, 9), (MIDDLE, 3)) == {}


def test_fresh_starts_and_tasks_of_other_suites_share_nothing() -> None:
    assert scored([*episodes(DRAWER, 9), *episodes(TOP, 9)], "random", {})["tasks"][1]["averaged"]
    assert shared_starts([*starts("their.py:a", 3), *starts("their.py:b", 3)], official_starts) == {}


@pytest.mark.parametrize("setting", [SETTING, "variant_aggregation"])
def test_all_averages_each_start_of_simpler_s_suite_once(setting: str) -> None:
    records = [record(number, task=task, setting=setting) for task, n in suite_of("all") for number in range(n)]
    content = scored(records, "grid", {})
    assert {task["task"] for task in content["tasks"] if not task["averaged"]} == PARTS
    assert sum(len(task["same_starts"]) > 0 and task["averaged"] for task in content["tasks"]) == 2  # a few starts each


def test_a_repeated_task_keeps_its_rate_and_is_no_part_of_the_mean() -> None:
    lost = [record(number, success=False, task=TOP) for number in range(9)]
    content = scored([*episodes(DRAWER, 27), *lost], "grid", {})
    assert [task["success_rate"] for task in content["tasks"]] == [1.0, 0.0]
    assert content["mean_success"] == 1.0
    mean = mean_of(content)
    assert mean is not None
    assert (mean["label"], mean["n"]) == ("mean over 1 task", 27)
    assert f"{TOP}: its starts are those of {DRAWER}; not part of the mean" in remarks(content)


def test_a_part_counts_while_nothing_of_the_whole_was_scored() -> None:
    content = scored([*(broken(number, task=DRAWER) for number in range(27)), *episodes(TOP, 9)], "grid", {})
    assert [task["averaged"] for task in content["tasks"]] == [True, True]
    assert content["mean_success"] == 1.0


def test_what_is_shared_survives_the_file() -> None:
    content = scored([*episodes(CAN, 75), *episodes(LYING, 25)], "grid", {})
    assert from_json(content["tasks"]) == shared((CAN, 75), (LYING, 25))


def test_equal_tasks_count_once_where_the_one_that_stands_for_both_is_absent() -> None:
    same = {Start(task, "", 0): Start("whole", "", 0) for task in ("b", "c")}
    assert distinct({(task, ""): [same[Start(task, "", 0)]] for task in ("b", "c")}) == [("b", "")]


def run(records: list[Record]) -> Run:
    return Run("a", Path("a"), {}, scored(records, "grid", {}), {each.key: each for each in records})


@pytest.fixture
def suite() -> Run:
    """A run of all tasks of the Google robot."""
    return run([each for task in suite_of("google_robot") for each in episodes(*task)])


def equal_policies(outcomes: Outcomes, count: int) -> Iterator[Outcomes]:
    """Comparisons of two policies that solve half of all starts; a start ends alike in all tasks that have it."""
    rng, number = np.random.default_rng(0), int(outcomes.starts.max()) + 1
    for _ in range(count):
        yield replace(outcomes, success=(rng.random((2, number)) < 0.5)[:, outcomes.starts])


def test_the_test_of_all_starts_of_a_suite_that_overlaps_keeps_its_error_rate(suite: Run) -> None:
    outcomes = gather([suite, suite], "last step")
    kept = np.array([task in outcomes.averaged for task in outcomes.tasks])
    wrong = [mcnemar_exact(each.pairs(1, kept).signs) < 0.05 for each in equal_policies(outcomes, 1000)]
    assert np.mean(wrong) <= 0.05
    separate = replace(outcomes, starts=np.arange(len(outcomes.tasks)))  # as if no two tasks shared a start
    every = np.ones(len(kept), bool)
    naive = [replace(separate, success=each.success).pairs(1, every).signs for each in equal_policies(outcomes, 100)]
    assert np.mean([mcnemar_exact(signs) < 0.05 for signs in naive]) > 0.1  # or this simulation would show nothing


def test_the_interval_of_the_mean_over_a_suite_that_overlaps_keeps_its_promise(
    suite: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.compare.comparison.suite_interval", partial(suite_interval, resamples=100))
    outcomes = gather([suite, suite], "last step")
    overall: list[dict[str, Any]] = [
        compared([suite, suite], 1, each, margin=0.05)["overall"] for each in equal_policies(outcomes, 100)
    ]
    missed = sum(not figures["ci95"][0] <= 0 <= figures["ci95"][1] for figures in overall)
    assert missed <= binom.ppf(0.975, len(overall), 0.05)  # it was half of them with all tasks in the mean
