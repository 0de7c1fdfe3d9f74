"""Work that leaves no threads behind.

OpenMP keeps a team of threads for every thread that ever computed. As soon as all teams together are larger than the
number of cores, each goes to sleep between any two operations: on 2 cores a policy that was loaded in one thread and
asked in another took three times as long for an answer. A team ends with the thread that it belongs to.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> T:
    """Do it in a thread of its own, wait for it, and return or raise what it does."""
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(work())
        except BaseException as error:  # raised again in the thread that waits
            raised.append(error)

    thread = threading.Thread(target=run, name="aside", daemon=True)  # whoever interrupts the wait need not wait longer
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
    return returned[0]
