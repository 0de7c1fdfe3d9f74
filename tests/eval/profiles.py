"""Settings of small profiles, and how little work their ceilings are measured with."""

from pathlib import Path
from typing import Any

from eval.profiler.ceilings import Effort
from eval.profiler.settings import Settings

LITTLE = Effort(sides=(32,), least_bytes=2**16, most_bytes=2**16, seconds=0)


def settings(checkpoint: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "model": "tiny", "accel": "none", "checkpoint": str(checkpoint), "dataset": None, "init": "trained",
        "device": "cpu", "dtype": "float32", "threads": None, "instruction": "put carrot on plate", "warm_up": 1,
        "repeats": 2, "trace": False, "kept": None, "out": "out",
    }  # fmt: skip
    return Settings.read(values | changes)
