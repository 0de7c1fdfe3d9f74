"""Sweeps of `cadence-eval`: jobs of their own, on this machine or, up to the submission, on Slurm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher", reason="no launcher is installed: pip install 'cadence-vla[slurm]'"
)
pytestmark = pytest.mark.timeout(300)  # several processes start in a test: slow where cores are scarce

ROOT = Path(__file__).parents[2]
SBATCH = '#!/bin/sh\nfor last; do :; done\ncp "$last" "$CADENCE_TEST_SCRIPT"\nexit 1\n'


def sweep(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eval", "-m", "policy=hold", "video=false", f"hydra.sweep.dir={folder / 'log'}"]
    command += [f"out={folder}/${{episodes}}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_each_job_has_its_results_and_a_bad_one_fails_the_sweep(tmp_path: Path) -> None:
    done = sweep(tmp_path, "hydra/launcher=submitit_local", "episodes=1,0")
    assert done.returncode == 2, done.stderr
    assert "episodes=0" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "1" / "results.json").exists()
    assert not (tmp_path / "0").exists()


def test_slurm_is_asked_for_an_array_of_jobs_that_may_go_on_where_they_were(tmp_path: Path) -> None:
    for name, text in (("srun", "#!/bin/sh\n"), ("sbatch", SBATCH)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "script"
    path = f"{tmp_path}:{os.environ['PATH']}"
    arguments = ("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "episodes=1,2,3", "workers=8")
    sweep(tmp_path, *arguments, PATH=path, CADENCE_TEST_SCRIPT=str(script))
    asked = script.read_text()
    for line in (
        "--array=0-2",
        "--partition=gpu",
        "--cpus-per-task=8",
        "--time=720",
        "--mem=32GB",
        "--open-mode=append",
    ):
        assert f"#SBATCH {line}" in asked, asked
    assert "submitit.core._submit" in asked
