"""Hands episodes to workers and takes their records: each once, also when workers are lost on the way."""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
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
    """The episodes nobody runs yet, shared by threads; it prefers those that can use the caller's last environment.

    Stages that lost workers come last: what kills every worker that simulates it keeps no other episode waiting.

    Args:
        episodes: to run.
        slots: who takes them; one that runs several at once is there several times.
    """

    def __init__(self, episodes: Iterable[Episode], slots: Iterable[object] = ()) -> None:
        self._waiting: dict[tuple[str, ...], deque[Episode]] = {}
        for episode in episodes:
            self._waiting.setdefault(stage_of(episode), deque()).append(episode)
        self._running: Counter[tuple[str, ...]] = Counter()
        self._living = Counter(map(id, slots))
        self._lost_by: defaultdict[Key, list[int]] = defaultdict(list)
        self._losses: Counter[tuple[str, ...]] = Counter()
        self._stopped = False
        self._changed = threading.Condition()

    def take(self, last: tuple[str, ...] | None, slot: object = None) -> Episode | None:
        """The next episode, None if all are done; waits while an episode that somebody runs may still come back.

        Args:
            last: what `stage_of` says of the caller's last episode.
            slot: the caller; what it lost goes to other slots while there are any that did not lose it.
        """
        with self._changed:
            while not self._stopped:
                found = {stage: first for stage in self._waiting if (first := self._first(stage, slot)) is not None}
                if found:
                    stage = last if last in found else min(found, key=self._crowding)
                    self._running[stage] += 1
                    self._waiting[stage].remove(found[stage])
                    return found[stage]
                if not self._running.total() and not any(self._waiting.values()):
                    break
                self._changed.wait()
            return None

    def done(self, episode: Episode) -> None:
        """An episode that was taken has its record."""
        with self._changed:
            self._running[stage_of(episode)] -= 1
            self._changed.notify_all()

    def give_back(self, episode: Episode, slot: object = None) -> bool:
        """An episode that a slot took lost its worker: True if it is to be run again, False if it lost too many."""
        with self._changed:
            self._lost_by[key_of(episode)].append(id(slot))
            self._losses[stage_of(episode)] += 1
            again = len(self._lost_by[key_of(episode)]) < TRIES
            if again:
                stage = stage_of(episode)
                self._running[stage] -= 1
                self._waiting[stage].appendleft(episode)
                self._changed.notify_all()
            return again

    def dismiss(self, slot: object, lost: AbstractSet[Key]) -> bool:
        """Whether a slot is broken, not its episodes, and can be spared; then it has left.

        Args:
            lost: what the caller lost in a row: TRIES different ones that no other slot lost tell of a broken slot.
        """
        with self._changed:
            here = id(slot)
            own = [key for key in lost if set(self._lost_by[key]) == {here}]
            spared = len(own) >= TRIES and any(count for each, count in self._living.items() if each != here)
            if spared:
                self._living[here] -= 1
                self._changed.notify_all()
            return spared

    def leave(self, slot: object) -> None:
        """A slot takes nothing more: what others lost does not wait for it."""
        with self._changed:
            self._living[id(slot)] -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _first(self, stage: tuple[str, ...], slot: object) -> Episode | None:
        return next((episode for episode in self._waiting[stage] if self._is_for(slot, episode)), None)

    def _is_for(self, slot: object, episode: Episode) -> bool:
        lost_by = self._lost_by.get(key_of(episode), ())
        others = (count for each, count in self._living.items() if each not in lost_by)
        return id(slot) not in lost_by or not any(others)

    def _crowding(self, stage: tuple[str, ...]) -> tuple[int, int, int]:
        return self._losses[stage], self._running[stage], -len(self._waiting[stage])


def dispatch(slots: Sequence[Slot], episodes: Sequence[Episode], store: Callable[[Record], None]) -> None:
    """Run episodes on all slots at once; `store` is called in this thread, once for each, as they end.

    Args:
        slots: one that runs several episodes at once is there several times.

    Raises:
        InputError: if the policy does not fit the robot of a task; what ran at that moment is not stored.
        WorkerLost: if no worker is left.
    """
    todo, ended = Todo(episodes, slots), SimpleQueue[Record | BaseException | None]()
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
    """What each thread does: one episode after another in one slot, until that is broken and others are not."""
    stage: tuple[str, ...] | None = None
    lost_here: set[Key] = set()
    try:
        while not (dismissed := todo.dismiss(slot, lost_here)):
            episode = todo.take(stage, slot) if slot.renew() else None
            if episode is None:
                break
            stage = stage_of(episode)
            try:
                record = slot.attempt(episode)
                lost_here.clear()
            except WorkerLost as loss:
                stage = None  # the world is gone too
                lost_here.add(key_of(episode))
                if todo.give_back(episode, slot):
                    continue
                record = lost(episode, f"{loss}, {TRIES} times")
            ended.put(record)
            todo.done(episode)
        if not dismissed:
            todo.leave(slot)
        ended.put(None)
    except BaseException as error:  # whoever waits for the records raises it
        ended.put(error)
