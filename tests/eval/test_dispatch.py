"""Every episode ends in exactly one record, whatever happens to whoever runs it."""

import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest

from eval.dispatch import Todo, dispatch
from eval.evaluate import TRIES, stage_of
from eval.results import Record
from eval.rollout import Episode
from eval.spread import WorkerLost
from tests.eval.records import record
from vla.api import InputError

EPISODES = [Episode("toy", number, variant=variant) for variant in ("base", "darker") for number in range(10)]


class Worker:
    """Answers each episode, except those it is lost in."""

    def __init__(self, fatal: Sequence[Episode] = (), lives: int = 1000) -> None:
        self.fatal = set(fatal)
        self.lives = lives
        self.tried: list[Episode] = []

    def attempt(self, episode: Episode) -> Record:
        self.tried.append(episode)
        if episode in self.fatal:
            self.lives -= 1
            raise WorkerLost("it died")
        return record(episode.episode_id, variant=episode.variant)

    def renew(self) -> bool:
        return self.lives > 0


def run(*workers: Worker) -> list[Record]:
    stored: list[Record] = []
    dispatch(workers, EPISODES, stored.append)
    return stored


def keys(records: Sequence[Record]) -> list[tuple[str, int]]:
    return sorted((each.variant, each.episode_id) for each in records)


ALL = sorted((episode.variant, episode.episode_id) for episode in EPISODES)


@pytest.mark.parametrize("workers", [1, 2, 3, 30])
def test_each_episode_is_stored_once(workers: int) -> None:
    assert keys(run(*(Worker() for _ in range(workers)))) == ALL


def test_a_worker_keeps_to_one_stage_while_it_can() -> None:
    worker = Worker()
    run(worker)
    stages = [stage_of(episode) for episode in worker.tried]
    assert sum(before != after for before, after in pairwise(stages)) == 1


def test_two_workers_begin_with_different_stages() -> None:
    todo = Todo(EPISODES)
    first, second = todo.take(None), todo.take(None)
    assert first is not None
    assert second is not None
    assert stage_of(first) != stage_of(second)


def test_the_episode_of_a_lost_worker_is_run_by_another() -> None:
    dies = Worker(EPISODES, lives=1)
    stored = run(dies, Worker())
    assert keys(stored) == ALL
    assert all(each.scored for each in stored)
    assert len(dies.tried) <= 1


def test_an_episode_that_kills_every_worker_is_an_error_after_some_tries() -> None:
    worker = Worker(EPISODES[3:4])
    stored = run(worker)
    broken = [each for each in stored if not each.scored]
    assert keys(stored) == ALL
    assert [(each.episode_id, each.outcome, each.error) for each in broken] == [(3, "error", "it died, 3 times")]
    assert worker.tried.count(EPISODES[3]) == TRIES


def test_a_worker_that_always_fails_costs_no_episode() -> None:
    broken, met = Worker(EPISODES), threading.Event()

    class Waits(Worker):
        """Runs nothing until the broken one gave up."""

        def renew(self) -> bool:
            return met.wait(timeout=30)

    class Retires(Worker):
        def attempt(self, episode: Episode) -> Record:
            try:
                return broken.attempt(episode)
            finally:
                if len(broken.tried) == TRIES:
                    met.set()

    stored = run(Retires(), Waits())
    assert keys(stored) == ALL
    assert all(each.scored for each in stored)
    assert len(set(broken.tried)) == len(broken.tried) == TRIES


def test_what_every_worker_lost_is_given_to_each_of_them_again() -> None:
    todo = Todo(EPISODES[:1], ("one", "two"))
    for slot in ("one", "two"):
        taken = todo.take(None, slot)
        assert taken is not None
        assert todo.give_back(taken, slot)
    assert todo.take(None, "one") == EPISODES[0]


def test_what_a_worker_lost_comes_back_to_it_when_no_other_lives() -> None:
    todo = Todo(EPISODES[:1], ("one", "two"))
    taken = todo.take(None, "one")
    assert taken is not None
    assert todo.give_back(taken, "one")
    todo.leave("two")
    assert todo.take(None, "one") == taken


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_what_kills_every_worker_costs_no_other_episode(workers: int) -> None:
    """Wherever it is simulated: workers of one machine share a slot, machines have one each."""
    for slots in ([Worker(EPISODES[:10])] * workers, [Worker(EPISODES[:10]) for _ in range(workers)]):
        stored = run(*slots)
        assert keys(stored) == ALL
        assert {each.variant: each.outcome for each in stored} == {"base": "error", "darker": "finished"}
        assert all(each.error == "it died, 3 times" for each in stored if not each.scored)
        assert sum(len(each.tried) for each in {*slots}) == 10 * TRIES + 10


def test_what_killed_a_worker_is_simulated_after_what_did_not() -> None:
    worker = Worker(EPISODES[:10])
    run(worker)
    assert [episode.variant for episode in worker.tried] == ["base"] + ["darker"] * 10 + ["base"] * (10 * TRIES - 1)


def test_when_everything_kills_its_worker_every_episode_is_an_error() -> None:
    stored = run(Worker(EPISODES), Worker(EPISODES))
    assert keys(stored) == ALL
    assert {each.outcome for each in stored} == {"error"}


def test_without_a_worker_left_it_says_how_much_was_not_run() -> None:
    with pytest.raises(WorkerLost, match="no worker is left; 20 of 20"):
        run(Worker(EPISODES, lives=1), Worker(EPISODES, lives=1))


def test_a_worker_waits_for_an_episode_that_may_come_back() -> None:
    todo = Todo(EPISODES[:1])
    taken, late = todo.take(None), []
    assert taken is not None
    waiting = threading.Thread(target=lambda: late.append(todo.take(None)))
    waiting.start()
    assert todo.give_back(taken)
    waiting.join(timeout=30)
    assert late == [taken]


def test_what_the_user_did_wrong_ends_it() -> None:
    class Refuses(Worker):
        def attempt(self, episode: Episode) -> Record:
            raise InputError("the policy acts every 0.5 s")

    with pytest.raises(InputError, match="every"):
        run(Refuses(), Worker())
