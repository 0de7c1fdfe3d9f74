"""Puts a calibration together from options: the policy and the demonstrations of each robot, and where it goes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vla.api import InputError
from vla.calibration.measured import calibrate
from vla.calibration.stored import FILE, Calibration
from vla.policy import PRETRAINED, VlaPolicy, load_policy, model_names
from vla.training.dataset import Demonstrations
from vla.training.lerobot_files import Directory
from vla.training.mixture import Mixture


@dataclass(frozen=True)
class Run:
    """What is about to be measured.

    Attributes:
        sources: the policy for each dataset's robot, and the dataset.
        frames: of each dataset.
        path: of the calibration.
    """

    sources: Sequence[tuple[VlaPolicy, Demonstrations]]
    frames: int
    path: Path

    @property
    def total(self) -> int:
        """Frames of all datasets."""
        return self.frames * len(self.sources)

    def measure(self, on_frame: Callable[[], None]) -> Calibration:
        """Measure; nothing is written."""
        fingerprint = Mixture(tuple(data for _, data in self.sources)).fingerprint()
        return calibrate(self.sources, self.frames, fingerprint, on_frame)


def prepare(options: dict[str, Any]) -> Run:
    """Check options, open the datasets, load the checkpoint once for each robot.

    Raises:
        InputError: naming the option, file or field at fault.
    """
    frames, threads, datasets = options["frames"], options["threads"], options["dataset"]
    for name, value in (("frames", frames), ("threads", threads)):
        missing = name == "threads" and value is None
        if not missing and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
    if threads is not None:
        torch.set_num_threads(threads)
    path = _destination(options)
    listed = [Path(str(each)) for each in (datasets if isinstance(datasets, list) else [datasets])]
    return Run([_source(options, directory) for directory in listed], frames, path)


def _destination(options: dict[str, Any]) -> Path:
    """The file to write: in the checkpoint's directory unless `out` says otherwise."""
    model, checkpoint, out = options["model"], options["checkpoint"], options["out"]
    if out is not None:
        path = Path(out)
    elif checkpoint is None and model not in model_names():
        raise InputError(f"no weights ship for {model!r}, only for {', '.join(model_names())}; give checkpoint=<dir>")
    else:
        path = (PRETRAINED / model if checkpoint is None else Path(checkpoint)) / FILE
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent} to write {path.name} to")
    return path


def _source(options: dict[str, Any], directory: Path) -> tuple[VlaPolicy, Demonstrations]:
    policy = load_policy(
        options["model"],
        options["checkpoint"],
        "none",
        options["device"],
        options["dtype"],
        robot=Directory.open(directory).robot,
    )
    cameras = [camera.name for camera in policy.spec.cameras]
    return policy, Demonstrations.open(directory, cameras, policy.spec.horizon, options["cache"])
