"""`cadence-convert <directory> <out>`: a published checkpoint -> the native layout."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.convert()

import re
import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cadence_configs.command import DONE, command
from vla.api import InputError
from vla.checkpoints.convert import convert

_POSITIONS = ("checkpoint", "out")


@command("convert", usage_errors=(InputError,))
def run(config: DictConfig) -> int:
    """Convert, and say what was written."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    written = convert(options)
    dtype = str(written.dtype).removeprefix("torch.")
    print(f"{written.directory}: {written.model_type}, {written.parameters / 1e6:.1f} M parameters in {dtype}")
    return DONE


def main() -> None:
    """Run with the first two words that have no key as `checkpoint` and `out`."""
    sys.argv[1:] = with_keys(sys.argv[1:])
    run()


def with_keys(words: list[str]) -> list[str]:
    """Overrides as Hydra reads them: `dir out a=b` -> `checkpoint='dir' out='out' a=b`; paths may hold anything."""
    positions = [i for i, word in enumerate(words) if not word.startswith("-") and _is_path(word)]
    named = dict(zip(positions, _POSITIONS, strict=False))
    return [f"{named[i]}={_quoted(word)}" if i in named else word for i, word in enumerate(words)]


def _is_path(word: str) -> bool:
    """Whether nothing that could be a key stands before a `=`."""
    key, equals, _ = word.partition("=")
    return not equals or not key.replace("+", "").replace("~", "").isidentifier()


def _quoted(word: str) -> str:
    """Any text as Hydra's quoted text: only what stands before a quote or the end is escaped, and `${`."""
    literal = word.replace("${", r"\${")
    escaped = re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + (r"\'" if end[2] else ""), literal)
    return f"'{escaped}'"
