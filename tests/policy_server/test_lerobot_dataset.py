"""The real `lerobot` package, unchanged, opens what is recorded; in an environment of its own, beside our torch."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies import SPEC
from tests.policy_server.elsewhere import environment, site_packages
from tests.policy_server.test_recorder import recorded, told

LEROBOT = "lerobot==0.4.4"
WHAT_ITS_DATASETS_IMPORT = ("datasets>=4,<5", "draccus==0.10.0", "deepdiff", "jsonlines", "einops")

# It imports torchvision for transforms that nobody asks for here; there is none for every build of torch.
NO_TORCHVISION = """
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
"""

PROGRAM = """
import json, sys
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("local/recording", root=sys.argv[1], video_backend="pyav")
meta = dataset.meta
rows = [{key: value.tolist() for key, value in row.items()} for row in dataset.hf_dataset]
print(json.dumps({"episodes": dataset.num_episodes, "frames": dataset.num_frames, "fps": dataset.fps, "rows": rows,
                  "tasks": meta.tasks.index.tolist(), "cameras": meta.camera_keys, "names": meta.names["action"],
                  "mean": meta.stats["step"]["mean"].tolist()}))
"""


@pytest.fixture(scope="session")
def lerobot_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with lerobot."""
    python = environment(request, "lerobot", ["--no-deps", LEROBOT], WHAT_ITS_DATASETS_IMPORT, ours=True)
    transforms = site_packages(python) / "torchvision" / "transforms"
    transforms.mkdir(parents=True, exist_ok=True)
    for path in (transforms.parent / "__init__.py", transforms / "__init__.py", transforms / "v2.py"):
        path.write_text(NO_TORCHVISION)
    return python


def opened(python: Path, folder: Path) -> dict[str, Any]:
    """What lerobot's own loader finds in a folder."""
    command = [str(python), "-c", PROGRAM, str(folder)]
    quiet = {**os.environ, "HF_HOME": str(folder.parent / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=quiet)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(1200)
def test_lerobot_reads_a_recording(lerobot_python: Path, tmp_path: Path) -> None:
    events = [told(step) for step in (0, 2, 3)]
    found = opened(lerobot_python, recorded(tmp_path / "recording", *events[:2], "s", events[2]))
    assert (found["episodes"], found["frames"], found["fps"]) == (2, 3, 5)
    assert found["tasks"] == ["put the spoon on the towel"]
    assert sorted(found["cameras"]) == ["observation.images.front", "observation.images.wrist"]
    assert found["names"] == [action.name for action in SPEC.actions]
    assert found["mean"] == [pytest.approx(5 / 3)]
    for row, (seen, chunk) in zip(found["rows"], events, strict=True):
        assert seen.state is not None
        np.testing.assert_array_equal(np.float32(row["observation.state"]), seen.state)
        np.testing.assert_array_equal(np.float32(row["action"]), chunk.actions[0])
        np.testing.assert_array_equal(np.float32(row["action_chunk"]), chunk.actions.reshape(-1))
        assert row["step"] == seen.step
    assert [row["episode_index"] for row in found["rows"]] == [0, 0, 1]
