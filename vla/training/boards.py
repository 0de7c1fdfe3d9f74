"""Where losses can be watched: TensorBoard and Weights & Biases, besides the run's own `train.jsonl`."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vla.api import InputError
from vla.training.checks import require_kind

Board = Callable[[Mapping[str, float]], None]
_NOT_CURVES = ("step", "image_size")


@contextmanager
def boards(out: Path, first_step: int, tensorboard: bool, wandb: str | None) -> Iterator[Board]:
    """What to tell the numbers of each step.

    Args:
        out: directory of the run; TensorBoard's files go to `out/tensorboard`.
        first_step: of this process; what an interrupted process logged beyond it is replaced.
        tensorboard: whether to write for TensorBoard.
        wandb: project of Weights & Biases, or None; the run's id there is kept in `out/wandb_id`.

    Raises:
        InputError: if a package is missing, or a value is of another kind.
    """
    require_kind("tensorboard", tensorboard, bool, "true or false")
    if wandb is not None:
        require_kind("wandb", wandb, str, "a project, or null")
    with ExitStack() as stack:
        told: list[Board] = []
        if tensorboard:
            told.append(stack.enter_context(_tensorboard(out / "tensorboard", first_step)))
        if wandb is not None:
            told.append(stack.enter_context(_wandb(wandb, out)))

        def tell(numbers: Mapping[str, float]) -> None:
            for board in told:
                board(numbers)

        yield tell


@contextmanager
def _tensorboard(directory: Path, first_step: int) -> Iterator[Board]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("tensorboard=true needs the package: pip install tensorboard; or tensorboard=false") from error
    writer = SummaryWriter(str(directory), purge_step=first_step + 1, flush_secs=30)

    def tell(numbers: Mapping[str, float]) -> None:
        for name, value in _curves(numbers).items():
            writer.add_scalar(name, value, int(numbers["step"]))

    try:
        yield tell
    finally:
        writer.close()


@contextmanager
def _wandb(project: str, out: Path) -> Iterator[Board]:
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"wandb={project} needs the package: pip install wandb; or wandb=null") from error
    client: Any = wandb
    run = client.init(project=project, dir=str(out), id=_wandb_id(out), name=out.resolve().name, resume="allow")
    try:
        yield lambda numbers: run.log(_curves(numbers), step=int(numbers["step"]))
    finally:
        run.finish()


def _wandb_id(out: Path) -> str:
    """Of this run and no other, kept for when it continues; directories elsewhere may have the same name."""
    path = out / "wandb_id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex)
    return path.read_text().strip()


def _curves(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if name not in _NOT_CURVES}
