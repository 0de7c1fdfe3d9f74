"""kill -9 of evaluator, workers and server at random moments: nothing is lost, doubled or changed."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from eval.evaluate import Evaluation
from eval.results import RunFolder
from eval.sources import Fixed
from tests.eval import robust
from tests.eval.test_evaluate import outcomes
from tests.eval.toy import Wanderer

KILLS = 20


@pytest.mark.timeout(300)
def test_twenty_kills_leave_the_episodes_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = random.Random(7)
    plan = [(robust.VICTIMS[number % 3], draws.uniform(0, 0.04)) for number in range(KILLS)]
    draws.shuffle(plan)
    monkeypatch.chdir(Path(__file__).parents[2])  # so that the processes find tests.eval
    statuses = []
    while not statuses or statuses[-1] != 0:
        command = [sys.executable, "-m", "tests.eval.robust", str(tmp_path / "killed"), json.dumps(plan)]
        statuses.append(subprocess.run(command, check=False).returncode)
        assert statuses[-1] in (0, 1, -signal.SIGKILL)
        assert len(statuses) < 2 * KILLS
    killed = robust.done(tmp_path / "killed")
    assert len(killed) == KILLS
    assert statuses.count(-signal.SIGKILL) == killed.count("evaluator") > 3
    with RunFolder(tmp_path / "one") as folder, Evaluation(Fixed(Wanderer()), robust.make_world, execute=1) as alone:
        alone.run(robust.EPISODES, folder, lambda record: None)
        uninterrupted = {record.episode_id: record for record in folder.records.values()}
    with RunFolder(tmp_path / "killed") as folder:
        resumed = {record.episode_id: record for record in folder.records.values()}
        assert len(folder.episodes.read_bytes().splitlines()) == len(robust.EPISODES)
    assert outcomes(resumed) == outcomes(uninterrupted)
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info["cmdline"])
    ]
