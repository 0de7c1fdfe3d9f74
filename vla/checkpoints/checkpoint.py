"""What every layout of a checkpoint is read into, and the layouts, found by looking."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

import vla.checkpoints
from vla.api import InputError
from vla.models.family import ActionModel
from vla.processing import Processing

BeforeWeights = Callable[[ActionModel], None]


@dataclass(frozen=True)
class Checkpoint:
    """A model and what belongs to it.

    Attributes:
        model: in evaluation mode, its weights in the dtype they are stored in.
        processing: units and normalisation.
        tokenizer: of the instructions.
        training: the options that made it, or where it comes from.
        robots: processing of each robot, if the checkpoint knows several; `processing` is that of one of them.
    """

    model: ActionModel
    processing: Processing
    tokenizer: tokenizers.Tokenizer
    training: dict[str, Any]
    robots: Mapping[str, Processing] = field(default_factory=dict)


@dataclass(frozen=True)
class Choices:
    """What a published checkpoint leaves to its user.

    Attributes:
        dataset: key of the statistics that actions are un-normalised with; None if there is one key only.
        robot: name of the robot in use; chooses among several keys if `dataset` does not, else it says nothing.
        camera: names of the cameras, in the order the model sees them, of a robot that is not known by its dataset's
            key; None if it is. The same for all below.
        height, width, period, rotation: of that robot.
    """

    dataset: str | None = None
    robot: str | None = None
    camera: tuple[str, ...] | None = None
    height: int | None = None
    width: int | None = None
    period: float | None = None
    rotation: str | None = None


def nothing_before(model: ActionModel) -> None:
    """A `BeforeWeights` that does nothing."""


@dataclass(frozen=True)
class Layout:
    """One way in which checkpoints lie in a directory; `vla/checkpoints/<name>.py` with a `LAYOUT` is one.

    Attributes:
        looks_like: what makes a directory one of these, for people.
        recognises: whether a directory is one of these, by its files; raises nothing.
        load: reads it; calls its third argument with the empty model before any weights take memory.
        weights_hash: hexadecimal digits that change with the weights or with what actions mean.
    """

    looks_like: str
    recognises: Callable[[Path], bool]
    load: Callable[[Path, Choices, BeforeWeights], Checkpoint]
    weights_hash: Callable[[Path, Choices], str]


def layout_of(directory: Path) -> Layout:
    """How the checkpoint in a directory is laid out.

    Raises:
        InputError: if there is no directory, or it is like none of the layouts.
    """
    if not directory.is_dir():
        raise InputError(f"there is no checkpoint directory {directory}; give checkpoint=<directory>")
    layouts = _layouts()
    for layout in layouts:
        if layout.recognises(directory):
            return layout
    known = "; ".join(layout.looks_like for layout in layouts)
    raise InputError(f"{directory} is like no checkpoint that can be read: {known}")


def _layouts() -> list[Layout]:
    names = sorted(module.name for module in pkgutil.iter_modules(vla.checkpoints.__path__) if not module.ispkg)
    modules = [importlib.import_module(f"{vla.checkpoints.__name__}.{name}") for name in names if name != "__main__"]
    return [layout for module in modules if isinstance(layout := getattr(module, "LAYOUT", None), Layout)]
