"""One episode, on a world small enough to know every answer."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eval.rollout import Episode, check_fit, rollout, stable_hash
from tests.eval.toy import QUANTITIES, SPEC, STEPS, Scripted, ToyWorld
from vla.api import InputError, Observation, Quantity
from vla.chunking import OpenLoop

EPISODE = Episode("toy", 3)


def test_an_episode_runs_to_its_time_limit_even_after_success() -> None:
    seen = rollout(ToyWorld(), Scripted(1, 1), EPISODE, OpenLoop(1))
    assert seen.success == [True] * STEPS
    assert seen.steps == STEPS


def test_success_is_noted_after_every_step() -> None:
    seen = rollout(ToyWorld(), Scripted(1, -1), EPISODE, OpenLoop(1))
    assert seen.success == [True] * STEPS
    assert seen.strict == [False] * STEPS


@pytest.mark.parametrize(("execute", "asked"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (3, [0, 3])])
def test_the_policy_is_asked_once_for_the_steps_executed(execute: int, asked: list[int]) -> None:
    policy = Scripted(0, 0)
    seen = rollout(ToyWorld(), policy, EPISODE, OpenLoop(execute))
    assert policy.steps == asked
    assert {stage: len(samples) for stage, samples in seen.latency_ms.items()} == dict.fromkeys(
        ("total", "round_trip"), len(asked)
    )


def test_the_policy_forgets_the_session_before_it_is_asked() -> None:
    policy = Scripted(0, 0)
    rollout(ToyWorld(), policy, EPISODE, OpenLoop(1))
    assert policy.sessions == [EPISODE.session]


def test_observers_see_every_observation_the_world_gave() -> None:
    observations: list[Observation] = []
    rollout(ToyWorld(), Scripted(0, 0), EPISODE, OpenLoop(3), [observations.append])
    assert [observation.step for observation in observations] == list(range(STEPS + 1))
    assert {observation.session for observation in observations} == {EPISODE.session}


@pytest.mark.parametrize(("watched", "drawn"), [(False, [1, 3, 5]), (True, [0, 1, 2, 3, 4, 5])])
def test_images_that_nobody_looks_at_are_not_drawn(watched: bool, drawn: list[int]) -> None:
    class Drawing(ToyWorld):
        draws, steps_drawn, steps = True, [], 0

        def step(self, action: NDArray[np.float32]) -> Any:
            self.steps_drawn += [self.steps] if self.draws else []
            self.steps += 1
            return super().step(action)

    world, seen = Drawing(), []
    rollout(world, Scripted(0, 0), EPISODE, OpenLoop(2), [seen.append] if watched else [])
    assert world.steps_drawn == drawn
    assert world.draws


def test_what_was_measured_before_an_exception_is_kept() -> None:
    class Breaks(Scripted):
        def infer(self, observation: Observation):
            if observation.step == 4:
                raise ZeroDivisionError
            return super().infer(observation)

    from eval.rollout import Rollout

    seen = Rollout()
    with pytest.raises(ZeroDivisionError):
        rollout(ToyWorld(), Breaks(1, 1), EPISODE, OpenLoop(1), into=seen)
    assert seen.steps == 4


def test_official_starts_go_by_number_and_fresh_ones_by_seed() -> None:
    world = ToyWorld()
    rollout(world, Scripted(0, 0), Episode("toy", 3, starts="grid"), OpenLoop(1))
    assert world.start == {"episode_id": 3}
    rollout(world, Scripted(0, 0), Episode("toy", 3, starts="random"), OpenLoop(1))
    assert world.start == {}


def test_seeds_and_sessions_differ_between_episodes() -> None:
    episodes = [Episode(task, number, run_seed=seed) for task in "ab" for number in range(50) for seed in range(3)]
    assert len({episode.seed for episode in episodes}) == len(episodes)
    assert len({episode.session for episode in episodes}) == len(episodes)


def test_seeds_are_the_same_in_another_process() -> None:
    code = "from eval.rollout import Episode; print(Episode('toy', 3).seed)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == EPISODE.seed == stable_hash(0, "toy", "visual_matching", 3)


def test_the_same_episode_twice_is_the_same() -> None:
    places = []
    world = ToyWorld()
    for _ in range(2):
        rollout(world, Scripted(0.01, 0), EPISODE, OpenLoop(1))
        places.append(world.place)
    np.testing.assert_array_equal(*places)


def fit(**changes) -> None:
    robot = {"state": QUANTITIES, "actions": QUANTITIES, "period": 0.2, "execute": 1}
    check_fit(SPEC, **{**robot, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"state": QUANTITIES[::-1]}, r"state x \[m\], y \[m\]; the robot has y"),
        ({"actions": (Quantity("x", "cm"), QUANTITIES[1])}, r"robot takes x \[cm\]"),
        ({"period": 0.3}, "every 0.2 s; the robot every 0.3 s"),
        ({"execute": 4}, r"1\.\.3.*got 4"),
    ],
)
def test_a_policy_of_another_robot_is_refused(changes, says: str) -> None:
    fit()
    with pytest.raises(InputError, match=says):
        fit(**changes)
