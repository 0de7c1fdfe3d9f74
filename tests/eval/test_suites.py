"""Environments of others are evaluated through one adapter file, here or in an environment of their own."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.evaluate import Evaluation
from eval.planning import plan, resolve
from eval.realtime import realtime_of
from eval.rollout import Episode
from eval.sources import open_source
from eval.suites.adapter import SuiteError, check, find, names
from eval.suites.process import ProcessWorld, SuiteProcessError
from eval.worlds import grid_size, make_world, robot_of, suite
from tests.eval.test_command import settings
from vla.api import Camera, InputError

FILE = str(Path(__file__).with_name("point_suite.py"))
TASK = f"{FILE}:push"
CAMERAS = (Camera("above", 16, 16),)
METAWORLD = os.environ.get("METAWORLD_PYTHON")  # an interpreter that has it, see eval/suites/metaworld.py
PLAYERS = [python for python in (METAWORLD, sys.executable if find_spec("imageio") else None) if python]


def world(python: str | None, cameras: tuple[Camera, ...] = CAMERAS) -> Any:
    return make_world(Episode(TASK, 0), cameras, False, suite_python=python)


def played(python: str | None) -> list[Any]:
    """Everything that a world shows in an episode."""
    here = world(python)
    shown = [here.reset(seed=7, options={"episode_id": 3})]
    shown += [here.step(np.array([0.2, 0.1, 0.0], np.float32)) for _ in range(8)]
    here.close()
    return shown


def test_a_process_of_its_own_shows_the_same_as_this_one() -> None:
    for mine, theirs in zip(played(None), played(sys.executable), strict=True):
        np.testing.assert_array_equal(mine[0]["images"]["above"], theirs[0]["images"]["above"])
        np.testing.assert_array_equal(mine[0]["state"], theirs[0]["state"])
        assert mine[1:] == theirs[1:]


def test_facts_cross_the_pipe() -> None:
    here = world(sys.executable)
    assert (here.state_names, here.action_units, here.control_period) == (("x", "y"), ("m", "m", "1"), 0.1)
    np.testing.assert_array_equal(here.hold_action, [0, 0, 0])
    here.close()


@pytest.mark.parametrize("python", [None, sys.executable])
def test_holding_moves_nothing_and_keeps_the_last_command_of_the_gripper(python: str | None) -> None:
    here = world(python, ())
    here.reset(seed=0)
    there = here.step(np.array([0.2, 0.1, -1.0], np.float32))[0]["state"]
    for _ in range(2):
        np.testing.assert_array_equal(here.hold_action, np.array([0, 0, -1], np.float32))
        np.testing.assert_array_equal(here.step(here.hold_action)[0]["state"], there)
    here.reset(seed=1)
    np.testing.assert_array_equal(here.hold_action, [0, 0, 0])
    here.close()


@pytest.mark.parametrize("python", [None, sys.executable])
def test_policies_are_scored(python: str | None, tmp_path: Path) -> None:
    outcomes = {}
    for policy in ("expert", "hold"):
        chosen = settings(policy=policy, suite_python=python, tasks=[TASK])
        with open_source(chosen, TASK) as source, Evaluation(source, make_world, 1) as evaluation:
            outcomes[policy] = evaluation.attempt(Episode(TASK, 1)).success_last_step
    assert outcomes == {"expert": True, "hold": False}


def test_a_slow_policy_holds_for_whole_periods(tmp_path: Path) -> None:
    chosen = settings(policy="expert", tasks=[TASK], realtime=True, latency_ms=150)
    live = realtime_of(chosen)
    with open_source(chosen, TASK) as source, Evaluation(source, make_world, 1, None, live) as evaluation:
        record = evaluation.attempt(Episode(TASK, 1))
    assert (record.error, record.steps) == ("", 8)
    assert record.latency_ms["stages"]["simulated"]["samples"] == [150.0] * 3


def test_what_breaks_in_the_process_breaks_the_episode_and_not_the_run() -> None:
    here = world(sys.executable)
    here.reset(seed=0)
    with pytest.raises(SuiteProcessError, match="the point flew away"):
        here.step(np.array([9.0, 0.0, 0.0], np.float32))
    here.step(here.hold_action)
    here._process.kill()
    with pytest.raises(SuiteProcessError, match="process"):
        here.step(here.hold_action)
    here.close()


def test_tasks_are_planned_by_their_full_name() -> None:
    episodes = plan(settings(tasks=[TASK, f"{FILE}:lift"]), ("widowx_stack_cube",), grid_size, suite)
    assert len(episodes) == 2 * check(TASK).starts
    assert {(episode.setting, episode.variant) for episode in episodes} == {("own", "base")}
    assert robot_of(TASK) == FILE


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (f"{FILE}:jump", "unknown task 'jump'.*allowed: push, lift"),
        ("nowhere.py:push", "no adapter file"),
        (f"{__file__}:push", "must define SUITE"),
        ("robosweet:push", "unknown suite 'robosweet'; allowed: metaworld"),
        ("metaworld:drawer-open-v9", "unknown task"),
    ],
)
def test_unknown_suites_and_tasks_are_refused(task: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        resolve([task], ())


def test_an_interpreter_that_cannot_play_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be started"):
        world(str(tmp_path / "python"))
    with pytest.raises(SuiteError, match=r"No module named 'metaworld'.*pip install"):
        ProcessWorld("metaworld:reach-v3", find("metaworld"), None, sys.executable)
    with pytest.raises(SuiteError, match=r"suite_python=<path>.*pip install"):
        make_world(Episode("metaworld:reach-v3", 0), (), False)


def test_a_policy_that_sees_another_camera_is_refused() -> None:
    with pytest.raises(InputError, match="the robot has above"):
        world(None, (Camera("wrist", 16, 16),))


def test_adapters_are_found_by_their_file_name() -> None:
    assert names() == ["metaworld"]


@pytest.mark.skipif(PLAYERS == [], reason="gymnasium's MuJoCo environments need imageio (pip install imageio)")
@pytest.mark.parametrize("python", PLAYERS)
def test_the_example_of_an_adapter_plays_gymnasium_s_reacher(python: str) -> None:
    task = f"{Path(__file__).parents[2] / 'examples' / 'reacher_suite.py'}:reach"
    here = make_world(Episode(task, 0), (Camera("above", 48, 64),), False, suite_python=python)
    seen, expert = here.reset(seed=1, options={"episode_id": 1})[0], here.make_expert()
    assert seen["images"]["above"].shape == (48, 64, 3)
    assert seen["images"]["above"].std() > 10
    assert seen["state"].shape == (4,)
    steps = [here.step(expert.action()) for _ in range(100)]
    here.close()
    assert [step[3] for step in steps] == [False] * 99 + [True]
    assert steps[-1][4]["success"]


@pytest.mark.skipif(METAWORLD is None, reason="METAWORLD_PYTHON names no interpreter that has Meta-World")
def test_metaworlds_own_script_opens_the_drawer() -> None:
    task = "metaworld:drawer-open-v3"
    here = make_world(Episode(task, 0), (Camera("corner2", 64, 64),), False, suite_python=METAWORLD)
    first, expert = here.reset(options={"episode_id": 1}), here.make_expert()
    assert first[0]["images"]["corner2"].std() > 10
    solved = [here.step(expert.action())[4]["success"] for _ in range(150)]
    again = here.reset(options={"episode_id": 1})
    here.close()
    assert any(solved)
    np.testing.assert_array_equal(first[0]["state"], again[0]["state"])
