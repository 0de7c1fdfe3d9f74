"""Work that leaves no threads behind.

OpenMP keeps a team of threads for every thread that ever computed. As soon as all teams together are larger than the
number of cores, each goes to sleep between any two operations: on 2 cores a policy that was loaded in one thread and
asked in another took three times as long for an answer. A team ends with the thread that it belongs to.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def aside(work: Callable[P, T]) -> Callable[P, T]:
    """The same function in a thread of its own for each call, which waits for it and returns or raises what it does."""

    @wraps(work)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        returned: list[T] = []
        raised: list[BaseException] = []

        def run() -> None:
            try:
                returned.append(work(*args, **kwargs))
            except BaseException as error:  # raised again in the thread that waits
                raised.append(error)

        thread = threading.Thread(target=run, name="aside", daemon=True)  # who interrupts the wait need not wait longer
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        return returned[0]

    return called
