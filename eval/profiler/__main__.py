"""`cadence-profile`: latency, operations and memory at batch one, stage by stage, recipes side by side."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.profile()

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from cadence_configs.command import DONE, command
from eval.profiler.listing import recipes_and_summaries, techniques_and_summaries
from eval.profiler.settings import Settings
from eval.results import write_atomically
from vla.api import InputError

STORED_EVERY = 2.0  # [s] while measuring; storing takes time and the caches' content
FLAG = "--trace"


class Store:
    """Writes `profile.json`, while measuring only every few seconds, so that little is lost if measuring fails."""

    def __init__(self, path: Path, every: float) -> None:
        self.path = path
        self._every = every
        self._due = 0.0

    def offer(self, make: Callable[[], dict[str, Any]]) -> None:
        """Write if it is time."""
        if monotonic() >= self._due:
            self.write(make())
            self._due = monotonic() + self._every

    def write(self, content: dict[str, Any]) -> None:
        """Write now."""
        write_atomically(self.path, json.dumps(content, indent=2) + "\n")


@command("profile", usage_errors=(InputError,))
def run(config: DictConfig) -> int:
    """Measure, print tables, write `profile.json` and `profile.html`."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    settings = Settings.read(values)
    console = Console()
    if settings.lists_recipes:
        _list(console)
        return DONE
    return _profile(settings, console)


def _list(console: Console) -> None:
    """Say which recipes there are, and what recipes of one's own can be made of."""
    for name, summary in recipes_and_summaries():
        console.print(f"{name:20} {summary}", markup=False, highlight=False, soft_wrap=True)
    for slot, methods in techniques_and_summaries().items():
        console.print(f"\n{slot}:" if methods else f"\n{slot}: none yet", markup=False, highlight=False)
        for method, summary in methods:
            console.print(f"  {method:18} {summary}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point; Hydra knows no flags of ours, so `--trace` is read as `trace=true`."""
    sys.argv[1:] = ["trace=true" if word == FLAG else word for word in sys.argv[1:]]
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler reports its start and end on stderr; read once
    run()


def _profile(settings: Settings, console: Console) -> int:
    folder = settings.writable_out()
    from eval.profiler.kept import check_source
    from eval.profiler.profile import prepare  # torch: after bad keys were refused, it takes seconds
    from eval.profiler.report import tables, write_page

    if settings.kept is not None:
        check_source(settings.kept)
    store = Store(folder / "profile.json", STORED_EVERY)
    prepared = prepare(settings, sys.argv)
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("measuring", total=settings.repeats)

        def after_round(make: Callable[[], dict[str, Any]]) -> None:
            progress.advance(bar)
            store.offer(make)

        content = prepared.measure(after_round)
    store.write(content)
    console.print(tables(content))
    page = folder / "profile.html"
    write_page(page, content)
    traces = prepared.trace(str(folder)) if settings.trace else []
    pictures = prepared.pictures(str(folder)) if settings.kept is not None else []
    more = [*(("trace", path) for path in traces), *(("kept", path) for path in pictures)]
    for name, path in (("profile", store.path), ("page", page), *more):
        console.print(f"{name}: {path}", markup=False, soft_wrap=True)
    return DONE
