"""Puts a training run together from options: dataset, processing, model, trainer, and the checkpoint at the end."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vla.api import InputError
from vla.checkpoints import native
from vla.models.cogact import CogActConfig
from vla.processing import Processing
from vla.tokenizer import prompt_ids
from vla.training.batches import Batches
from vla.training.beginning import continuing, origin, starting
from vla.training.behaviour_cloning import Trainer
from vla.training.checks import require_kind, require_number, require_texts, require_whole
from vla.training.dataset import Demonstrations, Statistics
from vla.training.keypoints import KeypointHead
from vla.training.schedule import Cloning, Phase

_CLONING = ("draws", "keypoint_weight", "average_decay", "checkpoint_minutes", "validate_every", "seed", "bf16")
_OTHERS = ("dataset", "out", "from", "cameras", "validation_fraction", "validation_frames", "threads", "phases")


@dataclass(frozen=True)
class Run:
    """A run that is ready to start or to continue.

    Attributes:
        trainer: does the work.
        processing, tokenizer: go into the checkpoint.
        options: all options, stored with the checkpoint.
        checkpoint: directory it is written to.
        frames: of the training data.
    """

    trainer: Trainer
    processing: Processing
    tokenizer: tokenizers.Tokenizer
    options: dict[str, Any]
    checkpoint: Path
    frames: int

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.trainer.average.parameters())

    def export(self) -> None:
        """Write the averaged weights as a checkpoint, with everything needed to make it again."""
        training = {
            "options": self.options,
            "finished_steps": self.trainer.step,
            "demonstrations": _collection(Path(self.options["dataset"])),
        }
        native.save(self.checkpoint, self.trainer.average, self.processing, self.tokenizer, training)


def prepare(options: dict[str, Any]) -> Run:
    """Check options and data, build everything, and continue from a saved state if there is one.

    Raises:
        InputError: before any training, naming the option, file or field at fault.
    """
    _check_kinds(options)
    start = None if options["from"] is None else Path(options["from"])
    given = None if start is None else origin(start)
    sizes = given.model.config.to_dict() if given else options["model"]
    cloning = _cloning(options, sizes["image_size"], sizes["patch_size"])
    torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    out = _writable(Path(options["out"]))
    data = Demonstrations.open(options["dataset"], options["cameras"], sizes["horizon"])
    model, processing, tokenizer = continuing(given, data) if given else starting(options["model"], data)
    prompts = _prompts(data, processing, tokenizer, model.config)
    train_frames, held_out = data.split(options["validation_fraction"], options["seed"])
    held_out = _spread(held_out, options["validation_frames"])
    keypoints = None
    if options["keypoint_weight"] > 0:
        names = tuple(quantity.name for quantity in data.keypoint_quantities)
        centre = torch.from_numpy(Statistics.of(data.keypoints).mean)
        keypoints = KeypointHead(names, centre, model.config.language_width)
    batches = [Batches(data, frames, processing, prompts, options["seed"]) for frames in (train_frames, held_out)]
    identity = _identity(data, options["validation_fraction"], model.config, processing)
    identity["from"] = None if start is None else native.weights_hash(start)
    trainer = Trainer(model, keypoints, cloning, batches[0], (batches[1], held_out), out, identity)
    trainer.resume()
    return Run(trainer, processing, tokenizer, options, out / "checkpoint", len(train_frames))


def _identity(
    data: Demonstrations, validation_fraction: float, config: CogActConfig, processing: Processing
) -> dict[str, Any]:
    """What decides the weights besides how they are trained, by the names of the options as far as there are any."""
    decided = {"dataset": data.fingerprint(), "validation_fraction": validation_fraction}
    decided |= {f"model.{key}": value for key, value in config.to_dict().items()}
    return decided | {f"processing.{key}": value for key, value in processing.to_dict().items()}


def _spread(frames: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the frames, evenly spread."""
    count = min(count, len(frames))
    return frames[np.arange(count) * len(frames) // count]


def _collection(dataset: Path) -> dict[str, Any] | None:
    """How the demonstrations were collected, if `cadence-collect` made them."""
    record = dataset / "meta" / "collection.json"
    return json.loads(record.read_text()) if record.exists() else None


def _prompts(
    data: Demonstrations, processing: Processing, tokenizer: tokenizers.Tokenizer, config: CogActConfig
) -> Tensor:
    """(instructions, words) int64, padded at the end."""
    rows = [prompt_ids(tokenizer, processing.text(text), config.max_prompt)[0] for text in data.instructions]
    return pad_sequence(rows, batch_first=True, padding_value=config.pad_id)


def _cloning(options: dict[str, Any], image_size: int, patch_size: int) -> Cloning:
    phases = tuple(_phase(phase) for phase in options["phases"])
    for phase in phases:
        if image_size % phase.image_size or phase.image_size % patch_size:
            raise InputError(
                f"a phase's image_size must divide the model's {image_size} and be a multiple of its patch_size "
                f"{patch_size}, got {phase.image_size}"
            )
    if phases and phases[-1].image_size != image_size:
        raise InputError(f"the last phase must train on the model's {image_size} px, not {phases[-1].image_size}")
    return Cloning(phases=phases, **{key: options[key] for key in _CLONING})


def _phase(values: Any) -> Phase:
    require_kind("a phase", values, dict, "a group of options")
    known = {field.name for field in fields(Phase)}
    if set(values) != known:
        raise InputError(f"a phase has the keys {sorted(known)}, got {sorted(values)}")
    return Phase(**values)


def _check_kinds(options: dict[str, Any]) -> None:
    """Refuse what would be a traceback later; the schedule and the model's config check what is theirs."""
    missing = sorted({*_CLONING, *_OTHERS, "model"} - set(options))
    if missing:
        raise InputError(f"these options are missing: {', '.join(missing)}")
    for name in ("dataset", "out"):
        require_kind(name, options[name], str, "a directory")
    if options["from"] is not None:
        require_kind("from", options["from"], str, "the directory of a checkpoint, or null")
    require_texts("cameras", options["cameras"])
    for name in ("threads", "validation_frames"):
        require_whole(name, options[name], 1)
    require_number("validation_fraction", options["validation_fraction"], below=1)
    if options["validation_fraction"] == 0:
        raise InputError("validation_fraction must be above 0: at least one episode is held out to measure on")
    require_kind("phases", options["phases"], list, "a list of phases")
    require_kind("model", options["model"], dict, "a group of options")
    for name in ("horizon", "image_size", "patch_size") if options["from"] is None else ():
        require_whole(f"model.{name}", options["model"].get(name), 1)


def _writable(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "train.jsonl").open("a").close()
    except OSError as error:
        raise InputError(f"cannot write to out={out}: {error.strerror}; choose another directory") from error
    return out
