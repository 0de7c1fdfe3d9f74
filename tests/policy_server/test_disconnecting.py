"""A RemotePolicy that nobody closed: neither garbage collection nor the end of the program waits for it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

FORGETFUL = """
import gc
from policy_server.client import PolicyUnavailable, RemotePolicy
from policy_server.server import PolicyServer
from tests.policies import Digest, observation


def forget(endpoint: str, timeout: float) -> None:
    remote = RemotePolicy(endpoint, timeout=20.0)
    remote.timeout = timeout
    try:
        remote.infer(observation())
    except PolicyUnavailable:
        print("late")
    remote.timeout = 20.0
    remote.health()  # after a late answer with another socket than the first
    remote.itself = remote  # only garbage collection finds it


with PolicyServer(Digest()) as server:
    for timeout in (20.0, 1e-9):
        forget(server.endpoint, timeout)
        gc.collect()
        print("collected")
    kept = RemotePolicy(server.endpoint, timeout=20.0)
"""


def test_one_in_a_cycle_is_collected_and_one_that_is_left_lets_the_program_end() -> None:
    run = [sys.executable, "-c", FORGETFUL]
    ended = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.split()) == (0, ["collected", "late", "collected"]), ended.stderr
