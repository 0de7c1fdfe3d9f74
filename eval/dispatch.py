"""Hands episodes to workers and takes their records: each once, also when workers are lost on the way."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Protocol

from eval.evaluate import TRIES, key_of, lost, stage_of
from eval.results import Key, Record
from eval.rollout import Episode
from eval.spread import WorkerLost


class Slot(Protocol):
    """Runs one episode at a time, somewhere; used by one thread."""

    def attempt(self, episode: Episode) -> Record:
        """Run one episode; whatever goes wrong inside it becomes its record.

        Raises:
            InputError: if the policy does not fit the robot, or the world cannot be built.
            WorkerLost: if whoever ran it is gone.
        """
        ...

    def renew(self) -> bool:
        """Before each episode: wait for a worker if the last one was lost; False if there is none to be had."""
        ...


class Todo:
    """The episodes nobody runs yet, shared by threads; it prefers those that can use the caller's last environment."""

    def __init__(self, episodes: Iterable[Episode]) -> None:
        self._waiting: dict[tuple[str, ...], deque[Episode]] = {}
        for episode in episodes:
            self._waiting.setdefault(stage_of(episode), deque()).append(episode)
        self._running: Counter[tuple[str, ...]] = Counter()
        self._losses: Counter[Key] = Counter()
        self._stopped = False
        self._changed = threading.Condition()

    def take(self, last: tuple[str, ...] | None) -> Episode | None:
        """The next episode, None if all are done; waits while an episode that somebody runs may still come back.

        Args:
            last: what `stage_of` says of the caller's last episode.
        """
        with self._changed:
            while not self._stopped:
                stages = [stage for stage, episodes in self._waiting.items() if episodes]
                if stages:
                    stage = last if last in stages else min(stages, key=self._crowding)
                    self._running[stage] += 1
                    return self._waiting[stage].popleft()
                if not self._running.total():
                    break
                self._changed.wait()
            return None

    def done(self, episode: Episode) -> None:
        """An episode that was taken has its record."""
        with self._changed:
            self._running[stage_of(episode)] -= 1
            self._changed.notify_all()

    def give_back(self, episode: Episode) -> bool:
        """An episode that was taken lost its worker: True if it is to be run again, False if it lost too many."""
        with self._changed:
            self._losses[key_of(episode)] += 1
            again = self._losses[key_of(episode)] < TRIES
            if again:
                stage = stage_of(episode)
                self._running[stage] -= 1
                self._waiting[stage].appendleft(episode)
                self._changed.notify_all()
            return again

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _crowding(self, stage: tuple[str, ...]) -> tuple[int, int]:
        return self._running[stage], -len(self._waiting[stage])


def dispatch(slots: Sequence[Slot], episodes: Sequence[Episode], store: Callable[[Record], None]) -> None:
    """Run episodes on all slots at once; `store` is called in this thread, once for each, as they end.

    Raises:
        InputError: if the policy does not fit the robot of a task; what ran at that moment is not stored.
        WorkerLost: if no worker is left.
    """
    todo, ended = Todo(episodes), SimpleQueue[Record | BaseException | None]()
    for slot in slots:
        threading.Thread(target=_work, args=(slot, todo, ended), daemon=True).start()
    left, working = len(episodes), len(slots)
    try:
        while left:
            record = ended.get()
            if isinstance(record, BaseException):
                raise record
            if record is not None:
                store(record)
                left -= 1
            else:
                working -= 1
            if left and not working:
                raise WorkerLost(f"no worker is left; {left} of {len(episodes)} episodes were not run")
    finally:
        todo.stop()


def _work(slot: Slot, todo: Todo, ended: "SimpleQueue[Record | BaseException | None]") -> None:
    """What each thread does: one episode after another in one slot."""
    stage: tuple[str, ...] | None = None
    try:
        while slot.renew() and (episode := todo.take(stage)) is not None:
            stage = stage_of(episode)
            try:
                record = slot.attempt(episode)
            except WorkerLost as loss:
                if todo.give_back(episode):
                    continue
                record = lost(episode, f"{loss}, {TRIES} times")
            ended.put(record)
            todo.done(episode)
        ended.put(None)
    except BaseException as error:  # whoever waits for the records raises it
        ended.put(error)
