"""Runs a policy in a thread of its own, one job at a time: some answers together, a reset, or what to forget."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter
from typing import TypeAlias

import numpy as np

from policy_server import messages
from policy_server.mailbox import Request
from vla.api import ActionChunk, ActionError, BatchPolicy, InputError, Observation, Policy

log = logging.getLogger(__name__)

WARM_UP_STEPS = 3
Result: TypeAlias = ActionChunk | Exception | None


@dataclass(eq=False)
class Job:
    """What the policy does at a stretch.

    Attributes:
        requests: one reset, or observations of different sessions.
        forget: sessions to forget before.
        started: [s] when it was handed to the worker.
        ended: what `answer` returned or raised; None while the job is under way.
    """

    requests: Sequence[Request]
    forget: Sequence[str]
    started: float
    ended: "list[Result] | BaseException | None" = None

    @property
    def forgetting_failed(self) -> bool:
        """Whether the policy could not forget a session, so that no request was run; once the job has ended."""
        return isinstance(self.ended, BaseException)

    def results(self) -> list[Result]:
        """One for each request, once the job has ended; an exception is that request's failure."""
        assert self.ended is not None, "the job is under way"
        if not isinstance(self.ended, BaseException):
            return self.ended
        log.error("the policy could not forget sessions %a", list(self.forget), exc_info=self.ended)
        return [RuntimeError(f"the policy could not forget: {self.ended}") for _ in self.requests]


class Worker:
    """The only thread that uses the policy.

    Args:
        policy: to run.
        ended: called, in the worker's thread, when a job has ended.

    Attributes:
        job: under way or ended but not taken; None when idle.
    """

    def __init__(self, policy: Policy, ended: Callable[[], None]) -> None:
        self._policy = policy
        self._ended = ended
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.job: Job | None = None

    def start(self, requests: Sequence[Request], forget: Sequence[str], now: float) -> None:
        """Begin a job; only when idle."""
        assert self.job is None, "the policy does one job at a time"
        for request in requests:
            request.started = now
        if self._thread is None:
            # A daemon: a server that nobody closed must not keep its program from ending; `close` waits for the job.
            self._thread = threading.Thread(target=self._run, name="policy", daemon=True)
            self._thread.start()
        self.job = Job(requests, forget, now)
        self._jobs.put(self.job)

    def take(self) -> Job | None:
        """The job that has ended, once."""
        if self.job is None or self.job.ended is None:
            return None
        ended, self.job = self.job, None
        return ended

    def close(self) -> None:
        """Wait for the running job."""
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        """One job after another. A queue hands them over in a third of the time that an executor takes."""
        while (job := self._jobs.get()) is not None:
            try:
                job.ended = answer(self._policy, job.requests, job.forget)
            except BaseException as error:  # it belongs to the job; whoever takes the job sees it
                job.ended = error
            self._ended()


def answer(policy: Policy, requests: Sequence[Request], forget: Sequence[str]) -> list[Result]:
    """One result per request: a chunk, None for a reset, or what was raised.

    Observations that fail together are asked one by one, so that one robot's mistake is answered to that robot alone.
    """
    for session in forget:
        policy.reset(session)
    seen = [_opened(request) for request in requests]
    together = [each for each in seen if isinstance(each, Observation)]
    if len(together) > 1 and isinstance(policy, BatchPolicy):
        try:
            chunks = iter(_checked_batch(policy, together))
            return [next(chunks) if isinstance(each, Observation) else each for each in seen]
        except Exception as error:
            log.info("a batch of %d failed (%s); asking one by one", len(together), error)
    return [_result(policy, request, each) for request, each in zip(requests, seen, strict=True)]


def _opened(request: Request) -> Observation | Exception | None:
    """What to infer from, its images unpacked; None for a reset."""
    if request.observation is None or not request.message.packed:
        return request.observation
    started = perf_counter()
    try:
        request.observation = messages.unpacked(request.observation, request.message)
        return request.observation
    except InputError as error:
        return error
    finally:
        request.image_decode = 1000 * (perf_counter() - started)


def _result(policy: Policy, request: Request, seen: Observation | Exception | None) -> Result:
    if isinstance(seen, Exception):
        return seen
    try:
        if seen is None:
            return policy.reset(request.session)
        return _infer(policy, seen)
    except Exception as error:  # it belongs to this request; the server answers it and goes on
        return error


def _infer(policy: Policy, observation: Observation) -> ActionChunk:
    try:
        return _checked(policy, policy.infer(observation))
    except ActionError as error:  # an InputError, but not the robot's
        raise RuntimeError(f"the policy gave no usable actions: {error}") from error


def _checked_batch(policy: BatchPolicy, observations: Sequence[Observation]) -> list[ActionChunk]:
    chunks = [_checked(policy, chunk) for chunk in policy.infer_batch(observations)]
    if len(chunks) != len(observations):
        raise RuntimeError(f"the policy gave {len(chunks)} chunks for {len(observations)} observations")
    return chunks


def _checked(policy: Policy, chunk: ActionChunk) -> ActionChunk:
    promised = (policy.spec.horizon, len(policy.spec.actions))
    if chunk.actions.shape != promised:
        raise RuntimeError(f"the policy gave actions {chunk.actions.shape}, its spec promises {promised}")
    # Built anew, which checks it again: arrays can be written to, so it may not be what it was when it was built.
    return ActionChunk(chunk.actions, chunk.period, chunk.timing, chunk.statistics)


def warm_up(policy: Policy, max_batch: int = 1) -> None:
    """Answer black images at every batch size, so that the first robot waits for no allocation or compilation."""
    spec = policy.spec
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in spec.cameras}
    state = np.zeros(len(spec.state), np.float32) if spec.state else None
    seen = [
        [Observation(images, "warm up", state, f"warm-up {robot}", step) for robot in range(max_batch)]
        for step in range(WARM_UP_STEPS)
    ]
    for step in range(WARM_UP_STEPS):
        policy.infer(seen[step][0])
        if isinstance(policy, BatchPolicy):
            for size in range(2, max_batch + 1):
                policy.infer_batch(seen[step][:size])
    for robot in range(max_batch):
        policy.reset(f"warm-up {robot}")
