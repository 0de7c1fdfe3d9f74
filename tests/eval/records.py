"""Episode records for tests."""

from typing import Any

from eval.results import Record


def record(episode_id: int = 0, success: bool = True, **changes: Any) -> Record:
    """A finished episode, or one that went as `changes` says."""
    stages = {"round_trip": {"p50": 2.0, "p99": 3.0, "samples": [1.0, 2.0, 3.0]}}
    values: dict[str, Any] = {
        "task": "toy",
        "setting": "visual_matching",
        "variant": "base",
        "episode_id": episode_id,
        "seed": 100 + episode_id,
        "instruction": "go right",
        "success_last_step": success,
        "success_any_step": success,
        "success_strict": success,
        "steps": 6,
        "outcome": "finished",
        "error": "",
        "sim_seconds": 1.2,
        "wall_seconds": 0.1,
        "latency_ms": {"p50": 2.0, "p99": 3.0, "stages": stages},
        "policy": "toy",
        "recipe": "none",
        "checkpoint": "c0ffee",
    }
    return Record(**{**values, **changes})


def broken(episode_id: int = 0, outcome: str = "error", **changes: Any) -> Record:
    """An episode that is neither success nor failure."""
    values = dict.fromkeys(("success_last_step", "success_any_step", "success_strict"))
    values |= {"error": "it broke", "latency_ms": {"p50": None, "p99": None, "stages": {}}}
    return record(episode_id, outcome=outcome, **{**values, **changes})
