"""`cadence-compare a/ b/`: two or more finished runs on the same starts, and how well they agree with a real robot."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.compare()

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from cadence_configs.command import DONE, WRONG_USAGE, command
from eval.compare.runs import check_starts, notes, read
from eval.compare.settings import Settings, with_runs
from eval.machine import describe
from eval.real_results import load
from eval.results import write_atomically
from vla.api import InputError


def main() -> None:
    """Read the command line, where runs may stand without a key."""
    try:
        sys.argv[1:] = with_runs(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(WRONG_USAGE)
    compare_runs()


@command("compare", usage_errors=(InputError,))
def compare_runs(config: DictConfig) -> int:
    """Print tables, write `compare.json`, `compare.md` and the chart."""
    values: Any = OmegaConf.to_container(config, resolve=True)
    settings = Settings.read(values)
    runs = [read(Path(path), name) for path, name in zip(settings.runs, settings.labels, strict=True)]
    check_starts(runs)
    trials = load(Path(settings.real)) if settings.real else None
    from eval.compare.chart import draw, save  # matplotlib and scipy: after bad input was refused, they take seconds
    from eval.compare.comparison import compare
    from eval.compare.reality import agreement
    from eval.compare.report import as_markdown, tables

    words = [sys.argv[0], *settings.runs, *(word for word in sys.argv[1:] if not word.startswith("runs="))]
    content = {"meta": describe(words, gl_renderer=""), **compare(runs, settings.counted, settings.margin)}
    content |= {"real": agreement(content["runs"], trials) if trials else None, "notes": notes(runs)}
    folder = Path(settings.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "compare.json", json.dumps(content, indent=2) + "\n")
        write_atomically(folder / "compare.md", as_markdown(content))
        save(draw(content), folder / "compare")
    except OSError as error:
        raise InputError(f"out={folder} cannot be written: {error.strerror}; choose another folder") from error
    console = Console()
    console.print(tables(content))
    console.print(f"comparison: {folder / 'compare.md'}", markup=False, soft_wrap=True)
    return DONE
