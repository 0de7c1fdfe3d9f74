"""`cadence-train`: demonstrations -> a checkpoint directory."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cadence_configs.command import DONE, command
from vla.api import InputError
from vla.training.allocator import keep_freed_memory
from vla.training.run import prepare


@command("train", usage_errors=(InputError,))
def main(config: DictConfig) -> int:
    """Train, show progress, save the checkpoint whenever the state is saved."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    console = Console()
    keep_freed_memory()
    run = prepare(options)
    console.print(f"{run.frames} frames, {run.parameters / 1e6:.2f} M parameters, {run.trainer.cloning.steps} steps")
    if run.trainer.step:
        console.print(f"continuing after step {run.trainer.step}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, refresh_per_second=1) as progress:
        bar = progress.add_task("training", total=run.trainer.cloning.steps, completed=run.trainer.step)

        def on_step(losses: dict[str, float]) -> None:
            text = f"action {losses['action_loss']:.4f} key points {losses['keypoint_loss']:.4f}"
            progress.update(bar, advance=1, description=text)
            if "validation_error" in losses:
                console.print(f"step {losses['step']}: {text} validation error {losses['validation_error']:.4f}")

        run.trainer.run(on_step, lambda _: run.export())
    run.export()
    console.print(f"checkpoint: {run.checkpoint}")
    return DONE


if __name__ == "__main__":
    main()
