"""`cadence-calibrate`: demonstrations + checkpoint -> `calibration.json`, which recipes that prune need."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.calibrate()

from collections.abc import Mapping, Sequence
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
    _print(console, f"importance over {found.frames} frames", found.layers, 4)
    if found.tokens:
        _print(console, "visual tokens each layer needs, by the share kept of all", found.tokens, 2)
    console.print(f"calibration: {run.path}", markup=False, soft_wrap=True)
    return DONE


def _print(console: Console, title: str, columns: Mapping[str, Sequence[float]], digits: int) -> None:
    table = Table("layer", *columns, title=title)
    for layer, row in enumerate(zip(*columns.values(), strict=True)):
        table.add_row(str(layer), *(f"{value:.{digits}f}" for value in row))
    console.print(table)
