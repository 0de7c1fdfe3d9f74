"""What is loaded in passing leaves no threads behind that would slow others down."""

import subprocess
import sys
import threading

import pytest

from vla.aside import aside

LOADED = """
import os
import time

import torch
from vla.policy import load_policy

torch.set_num_threads(2)
before = len(os.listdir("/proc/self/task"))
load_policy()
deadline = time.monotonic() + 20  # they end a moment after the thread that they belong to
while len(os.listdir("/proc/self/task")) > before and time.monotonic() < deadline:
    time.sleep(0.01)
print(len(os.listdir("/proc/self/task")) - before)
torch.ones(2000, 2000) @ torch.ones(2000, 2000)
print(len(os.listdir("/proc/self/task")) - before)
"""


def test_it_returns_and_raises_what_the_work_does_in_a_thread_that_ends() -> None:
    def work() -> str:
        return threading.current_thread().name

    assert aside(work)() == "aside"
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)()
    assert all(thread.name != "aside" for thread in threading.enumerate())


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads that Linux lists")
def test_a_policy_is_loaded_without_a_team_of_threads_in_the_loading_thread() -> None:
    counted = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, timeout=300)
    after_loading, after_computing = map(int, counted.stdout.split())
    assert after_loading == 0
    assert after_computing > 0, "computing makes a team, so the count above says something"
