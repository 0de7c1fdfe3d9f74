"""Asking a policy without waiting for it: a thread of its own runs the policy, one question at a time."""

import logging
import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from vla.api import ActionChunk, Observation, Policy

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of a question: a chunk or an error.

    Attributes:
        observation: that was asked about.
        chunk: the policy's answer, or None.
        error: what the policy raised, or None.
    """

    observation: Observation
    chunk: ActionChunk | None = None
    error: Exception | None = None


class Asker(Protocol):
    """Asks a policy; no method waits."""

    @property
    def busy(self) -> bool:
        """Whether a question is under way whose answer was not taken."""
        ...

    def ask(self, observation: Observation, reset: bool) -> None:
        """Ask about this observation, after a reset of its session if told so; only when not busy."""
        ...

    def take(self) -> Answer | None:
        """The answer, once, when it is there."""
        ...

    def close(self) -> None:
        """Ask nothing more."""
        ...


class Background:
    """An Asker that runs a policy in a thread, which is the only one that uses it until `close`.

    Args:
        policy: any policy; whatever it raises becomes an `Answer`.
        patience: [s] that `close` waits for the running answer.
    """

    def __init__(self, policy: Policy, patience: float = 10.0) -> None:
        self._policy = policy
        self._patience = patience
        self._questions: SimpleQueue[tuple[Observation, bool] | None] = SimpleQueue()
        self._answers: SimpleQueue[Answer] = SimpleQueue()
        self._busy = False
        self._answered = threading.Event()
        # A daemon: a policy that never returns must not keep the robot's program from ending.
        self._thread = threading.Thread(target=self._run, name="policy-asker", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a question is under way whose answer was not taken."""
        return self._busy

    def ask(self, observation: Observation, reset: bool) -> None:
        """Start to ask; returns at once."""
        assert not self._busy, "one question at a time: take the answer first"
        self._busy = True
        self._answered.clear()
        self._questions.put((observation, reset))

    def take(self) -> Answer | None:
        """The answer, once, when it is there; returns at once."""
        try:
            answer = self._answers.get_nowait()
        except Empty:
            return None
        self._busy = False
        return answer

    def wait(self, timeout: float) -> bool:
        """Wait until an answer can be taken, at most `timeout` [s]; not for control loops.

        Returns:
            whether there is one.
        """
        return self._answered.wait(timeout)

    def close(self) -> None:
        """Let the running answer end; a policy that takes longer than `patience` is left behind."""
        self._questions.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            log.warning("the policy has not returned for %g s and is left behind", self._patience)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            self._answers.put(self._answer(*question))
            self._answered.set()

    def _answer(self, observation: Observation, reset: bool) -> Answer:
        try:
            if reset:
                self._policy.reset(observation.session)
            return Answer(observation, chunk=self._policy.infer(observation))
        except Exception as error:  # the loop counts it, logs it and lets the robot hold
            return Answer(observation, error=error)
