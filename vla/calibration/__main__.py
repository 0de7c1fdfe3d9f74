"""`cadence-calibrate`: demonstrations + checkpoint -> `calibration.json`, which recipes that prune need."""

from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cadence_configs.command import DONE, command
from vla.api import InputError


@command("calibrate", usage_errors=(InputError,))
def main(config: DictConfig) -> int:
    """Measure, show progress, write the file."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    from vla.calibration.run import prepare  # torch: after bad keys were refused, it takes seconds

    console = Console()
    run = prepare(options)
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring frames", total=run.total)
        found = run.measure(lambda: progress.advance(bar))
    try:
        found.write(run.path)
    except OSError as error:
        raise InputError(f"{run.path} cannot be written: {error.strerror}; choose another file with out=") from error
    table = Table("layer", *found.layers, title=f"importance over {found.frames} frames")
    for layer in range(found.depth):
        table.add_row(str(layer), *(f"{values[layer]:.4f}" for values in found.layers.values()))
    console.print(table)
    console.print(f"calibration: {run.path}", markup=False, soft_wrap=True)
    return DONE


if __name__ == "__main__":
    main()
