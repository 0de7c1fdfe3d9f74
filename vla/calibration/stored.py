"""What techniques learned from data about one checkpoint: `calibration.json` beside its weights.

`cadence-calibrate` writes it into the checkpoint's directory, where every recipe finds it; a recipe's key `calibration`
names another file. It says which weights it was measured on, and is refused for any other.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from vla.api import InputError
from vla.checkpoints.files import read_json

FILE = "calibration.json"
RANDOM = "random"  # instead of the hash of weights that were never trained
HIDDEN, ACTIVATION, OUTPUT = "hidden", "activation", "output"
OF_LAYERS, OF_CHANNELS = (HIDDEN, OUTPUT), (ACTIVATION, OUTPUT)
OF_TOKENS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9")  # shares of all layers' visual tokens
COMMAND = "cadence-calibrate checkpoint=<directory> dataset=<demonstrations>"


@dataclass(frozen=True)
class Calibration:
    """Importances within one checkpoint's language model, larger is more important.

    Attributes:
        checkpoint: hash of the weights that were measured.
        dataset: fingerprint of the demonstrations.
        frames: how many of them were read.
        layers: criterion -> importance of each layer. `hidden`: 1 - cosine of what enters and what leaves it, mean
            over positions (EfficientVLA, eq. 1); `output`: 1 - cosine of what the head is given with and without it.
        channels: criterion -> for each layer, importance of each number inside its gated MLP. `activation`: its root
            mean square over positions; `output`: by how much what the head is given changes without it, relative and
            to first order.
        tokens: share of all layers' visual tokens -> share that each layer keeps by itself (PrefixKV); empty if that
            was not measured.

    Raises:
        InputError: if the parts do not describe one model.
    """

    checkpoint: str
    dataset: str
    frames: int
    layers: Mapping[str, Sequence[float]]
    channels: Mapping[str, Sequence[Sequence[float]]]
    tokens: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("layers", OF_LAYERS), ("channels", OF_CHANNELS)):
            by = getattr(self, name)
            if not isinstance(by, Mapping) or set(by) != set(known):
                raise InputError(f"a calibration needs the {name}' importance by {list(known)}, got {by!r:.80}")
        rows = [row for table in self.channels.values() for row in table]
        if not all(_are_numbers(row) for row in (*self.layers.values(), *rows)):
            raise InputError("a calibration's importances must be lists of finite numbers")
        if not isinstance(self.tokens, Mapping) or (self.tokens and tuple(self.tokens) != OF_TOKENS):
            raise InputError(f"a calibration needs the tokens' shares at {list(OF_TOKENS)}, got {self.tokens!r:.80}")
        if not all(_are_numbers(row) and all(0 < share <= 1 for share in row) for row in self.tokens.values()):
            raise InputError("a calibration's shares of tokens must be lists of numbers above 0 and up to 1")
        depths = {len(table) for table in (*self.layers.values(), *self.channels.values(), *self.tokens.values())}
        if len(depths) > 1 or len({len(row) for row in rows}) != 1:
            raise InputError(f"a calibration must know every layer once and all equally wide, got depths {depths}")

    @property
    def depth(self) -> int:
        """Layers of the language model."""
        return len(self.layers[HIDDEN])

    @property
    def width(self) -> int:
        """Numbers inside each of its MLPs."""
        return len(self.channels[ACTIVATION][0])

    def write(self, path: Path) -> None:
        """Store it; numbers keep four digits."""
        values = asdict(self)
        values["layers"] = {name: _short(row) for name, row in self.layers.items()}
        values["tokens"] = {name: _short(row) for name, row in self.tokens.items()}
        values["channels"] = {name: [_short(row) for row in table] for name, table in self.channels.items()}
        path.write_text(json.dumps(values) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """The inverse of `write`.

        Raises:
            InputError: if there is none, or it is damaged.
        """
        if not path.is_file():
            raise InputError(f"there is no calibration {path}; make one: {COMMAND}")
        values = read_json(path)
        known = {each.name for each in fields(cls)}
        if not known - {"tokens"} <= set(values) <= known:
            raise InputError(f"{path} has the keys {sorted(values)}, a calibration has {sorted(known)}")
        try:
            return cls(**values)
        except (InputError, TypeError) as error:
            raise InputError(f"{path}: {error}; make it again: {COMMAND}") from error


def find(directory: Path | None, named: str | None, weights_hash: str) -> Calibration | None:
    """The calibration of a checkpoint: the file that a recipe names, or else the one beside the weights.

    Args:
        directory: of the checkpoint; None: it has none.
        named: file; None: the recipe names none.
        weights_hash: of the checkpoint.

    Returns:
        None if no file is named and there is none beside the weights.

    Raises:
        InputError: if it is damaged, or was made for other weights.
    """
    path = Path(named) if named is not None else directory / FILE if directory is not None else None
    if path is None or (named is None and not path.is_file()):
        return None
    found = Calibration.read(path)
    if found.checkpoint != weights_hash:
        raise InputError(
            f"{path} was made for the checkpoint {found.checkpoint}, this one is {weights_hash}; make one: {COMMAND}"
        )
    return found


def arbitrary(depth: int, width: int) -> Calibration:
    """For a model with random weights, where nothing is more important than anything else: early layers win."""
    falling = [1 / (1 + layer) for layer in range(depth)]
    channels = [[1 / (1 + channel) for channel in range(width)]] * depth
    tokens = {budget: [float(budget)] * depth for budget in OF_TOKENS}
    return Calibration(RANDOM, "", 0, dict.fromkeys(OF_LAYERS, falling), dict.fromkeys(OF_CHANNELS, channels), tokens)


def _are_numbers(table: Any) -> bool:
    kind = list | tuple
    return isinstance(table, kind) and all(isinstance(x, int | float) and isfinite(x) for x in table)


def _short(row: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in row]
