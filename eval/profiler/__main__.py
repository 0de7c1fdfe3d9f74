"""`cadence-profile`: latency, operations and memory at batch one, stage by stage, recipes side by side."""

import json
import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from cadence_configs.command import DONE, command
from eval.profiler.settings import Settings
from eval.results import write_atomically
from vla.api import InputError


@command("profile", usage_errors=(InputError,))
def main(config: DictConfig) -> int:
    """Measure, print tables, write `profile.json`."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    settings = Settings.read(values)
    folder = settings.writable_out()
    from eval.profiler.profile import profile  # torch: after bad keys were refused, it takes seconds
    from eval.profiler.report import tables

    console = Console()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=settings.repeats)
        content = profile(settings, sys.argv, on_round=lambda: progress.advance(bar))
    path = folder / "profile.json"
    write_atomically(path, json.dumps(content, indent=2) + "\n")
    console.print(tables(content["rows"], content["meta"]))
    console.print(f"profile: {path}", markup=False, soft_wrap=True)
    return DONE


if __name__ == "__main__":
    main()
