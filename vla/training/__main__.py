"""`cadence-train`: demonstrations -> a checkpoint directory."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.train()

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cadence_configs.command import DONE, command
from vla.api import InputError
from vla.training.allocator import keep_freed_memory
from vla.training.behaviour_cloning import Diverged
from vla.training.boards import Board, boards
from vla.training.closed_loop import ClosedLoop
from vla.training.run import Run, prepare
from vla.training.team import LostMember, helped


@command("train", usage_errors=(InputError, Diverged, LostMember))
def main(config: DictConfig) -> int:
    """Train, show progress, save the checkpoint whenever the state is saved, and score it when that is asked for."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    console = Console()
    keep_freed_memory()
    with _progress(console) as progress:
        bar = progress.add_task("the teacher answers", visible=False)
        run = prepare(options, on_answers=lambda done, of: progress.update(bar, completed=done, total=of, visible=True))
    closed_loop = ClosedLoop.of(Path(options["out"]), options["evaluate"])
    console.print(f"{run.frames} frames, {run.parameters / 1e6:.2f} M parameters, {run.trainer.cloning.steps} steps")
    if run.trainer.step:
        console.print(f"continuing after step {run.trainer.step}")
    where = (Path(options["out"]), run.trainer.step, options["tensorboard"], options["wandb"])
    with boards(*where) as board, _progress(console) as progress, helped(run.trainer.team, help_to_train, options):
        _train(run, closed_loop, board, progress)
    run.export()
    console.print(f"checkpoint: {run.checkpoint}")
    return DONE


def help_to_train(options: dict[str, Any], number: int) -> None:
    """Be another process of a run."""
    keep_freed_memory()
    prepare(options, number).trainer.run(lambda losses: None, lambda trainer: None)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, refresh_per_second=1)


def _train(run: Run, closed_loop: ClosedLoop, board: Board, progress: Progress) -> None:
    last = run.trainer.cloning.steps
    bar = progress.add_task("training", total=last, completed=run.trainer.step)

    def on_step(losses: dict[str, float]) -> None:
        text = f"action {losses['action_loss']:.4f} key points {losses['keypoint_loss']:.4f}"
        progress.update(bar, advance=1, description=text)
        step = int(losses["step"])
        if "validation_error" in losses:
            progress.console.print(f"step {step}: {text} validation error {losses['validation_error']:.4f}")
        if closed_loop.is_due(step, last):
            run.export()
            success = closed_loop.score(run.checkpoint, step)
            progress.console.print(f"step {step}: mean success {success:.1%}")
            losses = {**losses, "mean_success": success}
        board(losses)

    run.trainer.run(on_step, lambda _: run.export())
