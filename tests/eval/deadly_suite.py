"""An adapter file with one task that kills every process that builds its world; the other is harmless."""

import os
import signal
from dataclasses import replace

from eval.suites.adapter import World
from tests.eval import point_suite


def make(task: str, size: tuple[int, int] | None) -> World:
    if task == "lift":
        os.kill(os.getpid(), signal.SIGSEGV)
    return point_suite.make(task, size)


SUITE = replace(point_suite.SUITE, make=make)
