"""A worker process: plays episodes that its parent names, and keeps world and policy between them.

`python -m eval.attached eval.worker <file descriptor>`; the descriptor is the parent's private pipe, which carries a
`Player` factory first, then one question and one answer at a time.
"""

import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal

from envs.errors import EnvError
from eval.evaluate import Entered, Evaluation
from eval.results import Record
from eval.rollout import Episode
from eval.sources import Dialled
from eval.spread import WorkerLost
from vla.api import InputError

Verb = Literal["begin", "attempt"]


class Player:
    """Plays single episodes.

    Args:
        evaluation: holds the world and knows the policy.
        line: the evaluation's source if the policy is a server's whose address may change; else None.
    """

    def __init__(self, evaluation: Evaluation, line: Dialled | None = None) -> None:
        self._evaluation = evaluation
        self._line = line

    def answer(self, verb: Verb, episode: Episode, address: str) -> Entered | Record:
        """Do one thing.

        Args:
            address: of the policy server, "" if there is none.

        Raises:
            InputError: if the policy does not fit the robot.
            EnvError: if the world cannot be built.
        """
        if self._line is not None:
            self._line.dial(address)
        return self._evaluation.begin(episode) if verb == "begin" else self._attempt(episode)

    def _attempt(self, episode: Episode) -> Record:
        if not self._evaluation.is_at(episode):
            with suppress(TimeoutError):  # the server has just died: below, that becomes the episode's record
                self._evaluation.enter(episode)
        return self._evaluation.attempt(episode)


MakePlayer = Callable[[], AbstractContextManager[Player]]


def serve(connection: "Connection[Any, Any]") -> None:
    """Answer until the parent closes its end; without a player the first answer says why, and is the last."""
    make: MakePlayer = connection.recv()
    with ExitStack() as stack, suppress(EOFError):
        opened = outcome(lambda: stack.enter_context(make()))
        kind, player = opened
        while kind == "done":
            question = connection.recv()
            connection.send(outcome(partial(player.answer, *question)))
        connection.recv()
        connection.send(opened)


def outcome(do: Callable[[], Any]) -> tuple[str, Any]:
    """What came of it, in a form that any process understands: see `answer_of`."""
    try:
        return "done", do()
    except (InputError, EnvError) as error:
        return "refused", str(error)
    except WorkerLost as loss:  # of a crew on another machine
        return "lost", str(loss)
    except Exception:  # whoever asked says it: nobody looks at this process
        return "failed", traceback.format_exc()


def answer_of(outcome: tuple[str, Any]) -> Any:
    """What another process answered.

    Raises:
        InputError: if the user did something wrong.
        WorkerLost: if something broke there, or a worker was lost.
    """
    kind, answer = outcome
    if kind == "refused":
        raise InputError(answer)
    if kind == "lost":
        raise WorkerLost(answer)
    if kind == "failed":
        raise WorkerLost(f"a worker failed:\n{answer}")
    return answer


if __name__ == "__main__":
    from eval.worker import serve as serve_as_imported  # not as __main__: the pipe carries classes by their names

    with Connection(int(sys.argv[1])) as pipe:
        serve_as_imported(pipe)
