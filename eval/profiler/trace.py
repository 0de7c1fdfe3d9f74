"""What one answer does, operation by operation, for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function

from eval.profiler.latency import watching
from vla.api import Observation
from vla.policy import VlaPolicy


class NamedSpans:
    """Spans that name a stage in the trace."""

    milliseconds: Mapping[str, float] = {}

    def __call__(self, stage: str) -> AbstractContextManager[object]:
        return record_function(stage)


def write_trace(policy: VlaPolicy, observation: Observation, folder: str) -> str:
    """Answer once under PyTorch's profiler, which slows it down; returns the file."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if policy.device.type == "cuda" else [])]
    with watching(policy, NamedSpans), profile(activities=activities, record_shapes=True, acc_events=True) as seen:
        policy.infer(observation)
    path = Path(folder) / f"trace_{policy.recipe.name}.json"
    seen.export_chrome_trace(str(path))
    return str(path)
