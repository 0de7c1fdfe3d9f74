"""Puts a training run together from options: dataset, processing, model, trainer, and the checkpoint at the end."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray

from vla.api import InputError
from vla.checkpoints import native
from vla.models.openvla import OpenVlaConfig
from vla.models.trunk import TrunkConfig
from vla.processing import Processing
from vla.training.batches import Batches, prompts_of
from vla.training.beginning import begins_at, continuing, origin, restore_keypoints, restore_learner, starting, untaught
from vla.training.behaviour_cloning import Trainer
from vla.training.blocks import Blocks
from vla.training.checks import require_kind, require_number, require_texts, require_whole
from vla.training.dataset import CACHE
from vla.training.freezing import freeze
from vla.training.keypoints import KeypointHead
from vla.training.lora import Lora, adapted, merged
from vla.training.mixture import Mixture
from vla.training.objectives import AUTOREGRESSIVE, BLOCK_DIFFUSION, DIFFUSION, Diffusion, Objective, Words
from vla.training.schedule import Cloning, Phase
from vla.training.speaking import Tokens
from vla.training.teacher import answered
from vla.training.team import Team
from vla.training.wordings import Wordings

_CLONING = ("draws", "keypoint_weight", "average_decay", "checkpoint_minutes", "validate_every", "seed", "bf16")
_PLACES = ("dataset", "out", "from", "teacher", "wordings")
_COMPUTING = ("threads", "processes", "device", "compile")
_OTHERS = (*_PLACES, *_COMPUTING, "cameras", "validation_fraction", "validation_frames", "phases", "lora", "frozen")
_GROUPS = ("model", "tokens", "blocks")
_OBJECTIVES = (DIFFUSION, AUTOREGRESSIVE, BLOCK_DIFFUSION)


@dataclass(frozen=True)
class Run:
    """A run that is ready to start or to continue.

    Attributes:
        trainer: does the work.
        processing: of each robot; goes into the checkpoint, as the tokenizer does.
        options: all options, stored with the checkpoint.
        checkpoint: directory it is written to.
        frames: of the training data.
    """

    trainer: Trainer
    processing: Mapping[str, Processing]
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
            "demonstrations": [_collection(Path(dataset)) for dataset in _several(self.options["dataset"])],
        }
        model = self.trainer.average if self.options["lora"] is None else merged(self.trainer.average)
        native.save(self.checkpoint, model, self.processing, self.tokenizer, training)


def prepare(
    options: dict[str, Any], number: int = 0, on_answers: Callable[[int, int], None] = lambda done, total: None
) -> Run:
    """Check options and data, build everything, and continue from a saved state if there is one.

    Args:
        options: of the command.
        number: of this process among the `processes` that train together.
        on_answers: told for how many frames of how many a teacher's answers are there.

    Raises:
        InputError: before any training, naming the option, file or field at fault.
    """
    _check_kinds(options)
    start, past = begins_at(options["from"])
    lora = Lora.of(options["lora"])
    if lora and start is None:
        raise InputError("lora changes a checkpoint a little: name it with from=<directory>, or leave lora=null")
    tokens = None if options["objective"] == DIFFUSION else _group("tokens", Tokens, options)
    given = None if start is None else origin(start, speaks=tokens is not None)
    if given and past:
        restore_learner(given, past)
    sizes = given.model.config.to_dict() if given else options["model"]
    team = Team(number, options["processes"], Path(options["out"]) / "meeting")
    cloning = _cloning(options, sizes["image_size"], sizes["patch_size"], team.size)
    torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    out = _writable(Path(options["out"]))
    speaks = given is not None and isinstance(given.model.config, OpenVlaConfig)
    horizon = given.model.config.horizon if given and speaks else tokens.horizon if tokens else sizes["horizon"]
    data = _data(options, horizon, on_answers)
    wordings = _wordings(data, options["wordings"])
    new = untaught(given, options["objective"]) if given else ()
    if given:
        model, processing, tokenizer = continuing(given, data, tokens)
    else:
        model, processing, tokenizer = starting(
            options["model"], data, [text for each in wordings.values() for text in each], tokens
        )
    if lora:
        model = adapted(model, lora, new)
    freeze(model, options)
    prompts = prompts_of(wordings, processing, tokenizer, model.config)
    train_frames, held_out = data.split(options["validation_fraction"], options["seed"])
    held_out = _spread(held_out, options["validation_frames"])
    keypoints = _keypoints(data, model.config) if options["keypoint_weight"] > 0 else None
    if keypoints and past:
        restore_keypoints(keypoints, past)
    batches = [Batches(data, frames, processing, prompts, options["seed"]) for frames in (train_frames, held_out)]
    identity = _identity(data, options["validation_fraction"], model.config, processing)
    identity["from"] = None if start is None else native.weights_hash(start)
    identity |= {"from a run": True} if past else {}
    identity |= {"wordings": _digest(wordings), "tokenizer": _digest(tokenizer.to_str())} | _taught(options)
    identity |= {"processes": team.size} if team.size > 1 else {}
    objective = _objective(options, tokens, horizon)
    validation = (batches[1], held_out)
    computing = (options["compile"], objective, options["device"], team)
    trainer = Trainer(model, keypoints, cloning, batches[0], validation, out, identity, *computing)
    trainer.resume()
    return Run(trainer, processing, tokenizer, options, out / "checkpoint", len(train_frames))


def _data(options: dict[str, Any], horizon: int, on_answers: Callable[[int, int], None]) -> Mixture:
    """The datasets, with the teacher's answers if there is one."""
    data = Mixture.open(_several(options["dataset"]), options["cameras"], horizon)
    if options["teacher"] is None:
        return data
    caches = [Path(each) / CACHE for each in _several(options["dataset"])]
    return answered(data, Path(options["teacher"]), caches, options["threads"] * options["processes"], on_answers)


def _keypoints(data: Mixture, config: TrunkConfig) -> KeypointHead:
    """The auxiliary head that fits the data's labels."""
    names = tuple(quantity.name for quantity in data.parts[0].keypoint_quantities)
    if not names:
        raise InputError("the dataset has no key points to learn as well; add keypoint_weight=0")
    return KeypointHead(names, config.language_width, config.cameras)


def _identity(
    data: Mixture, validation_fraction: float, config: TrunkConfig, processing: Mapping[str, Processing]
) -> dict[str, Any]:
    """What decides the weights besides how they are trained, by the names of the options as far as there are any."""
    decided = {"dataset": data.fingerprint(), "validation_fraction": validation_fraction}
    decided |= {f"model.{key}": value for key, value in config.to_dict().items()}
    return decided | {
        f"processing.{robot}.{key}": value
        for robot, each in processing.items()
        for key, value in each.to_dict().items()
    }


def _digest(value: Any) -> str:
    """Sixteen hexadecimal digits that change with a plain value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _taught(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that decide what is learned; an objective that has none adds none."""
    changes = {name: options[name] for name in ("lora", "frozen") if options[name] is not None}
    if options["teacher"] is not None:
        changes["teacher"] = native.weights_hash(Path(options["teacher"]))
    if options["objective"] == DIFFUSION:
        return changes
    groups = {"tokens": options["tokens"]}
    if options["objective"] == BLOCK_DIFFUSION:
        groups["blocks"] = options["blocks"]
    values = {f"{group}.{key}": value for group, each in groups.items() for key, value in each.items()}
    return {"objective": options["objective"], **values, **changes}


def _objective(options: dict[str, Any], tokens: Tokens | None, horizon: int) -> Objective:
    if tokens is None:
        return Diffusion(options["draws"])
    if options["objective"] == AUTOREGRESSIVE:
        return Words(tokens.smoothing, rounding=tokens.rounding)
    blocks: Blocks = _group("blocks", Blocks, options)
    if blocks.actions > horizon:
        raise InputError(f"blocks.actions must be from 1 to {horizon}, the actions in a chunk, got {blocks.actions}")
    return Words(tokens.smoothing, blocks, tokens.rounding)


def _group(name: str, kind: type[Any], options: Mapping[str, Any]) -> Any:
    """A group of options as the dataclass that checks it."""
    known, values = {field.name for field in fields(kind)}, options[name]
    if set(values) != known:
        raise InputError(f"{name} has the keys {sorted(known)}, got {sorted(values)}")
    return kind(**values)


def _several(directories: str | list[str]) -> list[str]:
    return [directories] if isinstance(directories, str) else directories


def _wordings(data: Mixture, path: str | None) -> dict[str, list[str]]:
    """Instruction -> what one can say, the instruction itself first."""
    others = None if path is None else Wordings.read(Path(path))
    return {text: [text, *(others.of(text) if others else [])] for text in data.instructions}


def _spread(frames: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the frames, evenly spread."""
    count = min(count, len(frames))
    return frames[np.arange(count) * len(frames) // count]


def _collection(dataset: Path) -> dict[str, Any] | None:
    """How the demonstrations were collected, if `cadence-collect` made them."""
    record = dataset / "meta" / "collection.json"
    return json.loads(record.read_text()) if record.exists() else None


def _cloning(options: dict[str, Any], image_size: int, patch_size: int, processes: int) -> Cloning:
    phases = tuple(_phase(phase) for phase in options["phases"])
    for phase in phases:
        if phase.batch % processes:
            raise InputError(f"a phase's batch must be a multiple of processes = {processes}, got {phase.batch}")
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
    missing = sorted({*_CLONING, *_OTHERS, *_GROUPS, "objective"} - set(options))
    if missing:
        raise InputError(f"these options are missing: {', '.join(missing)}")
    require_kind("out", options["out"], str, "a directory")
    if not isinstance(options["dataset"], str):
        require_texts("dataset", options["dataset"])
    places = {"from": "the directory of a checkpoint or of a run", "teacher": "the directory of a checkpoint"}
    for name, what in {**places, "wordings": "a file"}.items():
        if options[name] is not None:
            require_kind(name, options[name], str, f"{what}, or null")
    if options["cameras"] is not None:
        require_texts("cameras", options["cameras"])
    require_kind("compile", options["compile"], bool, "true or false")
    if options["device"] not in ("cpu", "cuda") or (options["device"] == "cuda" and not torch.cuda.is_available()):
        there = "cpu or cuda" if torch.cuda.is_available() else "cpu: there is no CUDA device here"
        raise InputError(f"device must be {there}; got {options['device']!r}")
    if options["processes"] != 1 and options["device"] != "cpu":
        raise InputError(f"processes={options['processes']} train together on device=cpu only; use processes=1")
    for name in ("threads", "processes", "validation_frames"):
        require_whole(name, options[name], 1)
    require_number("validation_fraction", options["validation_fraction"], below=1)
    if options["validation_fraction"] == 0:
        raise InputError("validation_fraction must be above 0: at least one episode is held out to measure on")
    require_kind("phases", options["phases"], list, "a list of phases")
    for name in _GROUPS:
        require_kind(name, options[name], dict, "a group of options")
    if options["objective"] not in _OBJECTIVES:
        raise InputError(f"objective must be one of {', '.join(_OBJECTIVES)}, got {options['objective']!r}")
    for name in ("horizon", "image_size", "patch_size") if options["from"] is None else ():
        require_whole(f"model.{name}", options["model"].get(name), 1)


def _writable(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "train.jsonl").open("a").close()
    except OSError as error:
        raise InputError(f"cannot write to out={out}: {error.strerror}; choose another directory") from error
    return out
