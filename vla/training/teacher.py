"""Distillation: a policy learns what another one answers to each frame, in place of what the expert did there.

What an expert does depends on all it knows of the scene; what a policy answers depends on what it is shown, so it
is there to be learned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vla.api import InputError
from vla.aside import aside
from vla.checkpoints import native
from vla.models.cogact import CogAct
from vla.models.family import name_of
from vla.processing import Processing
from vla.training.batches import Batch, Batches, prompts_of
from vla.training.beginning import continuing
from vla.training.dataset import Demonstrations
from vla.training.mixture import Mixture
from vla.training.video_cache import write_array

_TOGETHER = 16  # frames
_STEPS, _GUIDANCE = 10, 1.5  # of DDIM, as a CogAct policy is used


def answered(
    data: Mixture,
    teacher: Path,
    caches: Sequence[Path],
    threads: int,
    on_frames: Callable[[int, int], None] = lambda done, total: None,
) -> Mixture:
    """The same frames with a teacher's answers for actions.

    The teacher denoises from zeros, the middle of all noise, so that a frame has one right answer. Answers are kept,
    under the hashes of the frames and of the teacher's weights: it answers once.

    Args:
        data: the demonstrations.
        teacher: directory of a checkpoint of the family cogact.
        caches: where what is made of each dataset is kept.
        threads: of the processor, to answer with.
        on_frames: told how many frames of how many are answered.

    Raises:
        InputError: if the teacher is of another family, answers with too few actions or does not fit the data, or a
            cache cannot be written.
    """
    how = f"{native.weights_hash(teacher)}-{_STEPS}-{_GUIDANCE}-{data.parts[0].horizon}"
    paths = [cache / f"answers-{part.fingerprint()}-{how}.npy" for cache, part in zip(caches, data.parts, strict=True)]
    if not all(path.exists() for path in paths):
        _answer_all(data, teacher, paths, threads, on_frames)
    return Mixture(tuple(replace(part, answers=np.load(path)) for part, path in zip(data.parts, paths, strict=True)))


@aside
def _answer_all(
    data: Mixture, teacher: Path, paths: Sequence[Path], threads: int, on_frames: Callable[[int, int], None]
) -> None:
    torch.set_num_threads(threads)
    model, batches, processing = _prepared(data, teacher)
    begin = 0
    for part, path in zip(data.parts, paths, strict=True):
        frames = begin + np.arange(len(part))
        begin += len(part)

        def fill(array: NDArray[np.float32], part: Demonstrations = part, frames: NDArray[np.int64] = frames) -> None:
            for rows in np.split(np.arange(len(part)), range(_TOGETHER, len(part), _TOGETHER)):
                said = _answers(model, batches.of(frames[rows], model.config.image_size))[:, : part.horizon]
                array[rows] = processing[part.robot].physical_actions(said)
                on_frames(int(frames[rows[-1]]) + 1, len(data))

        if not path.exists():
            write_array(path, (len(part), part.horizon, part.actions.shape[1]), np.float32, fill)


def _prepared(data: Mixture, teacher: Path) -> tuple[CogAct, Batches, Mapping[str, Processing]]:
    given = native.load(teacher)
    if not isinstance(given.model, CogAct):
        raise InputError(f"teacher: a policy of the family cogact can teach, not one of {name_of(given.model)}")
    if given.model.config.horizon < data.parts[0].horizon:
        raise InputError(
            f"teacher: it answers with {given.model.config.horizon} actions and a chunk to learn has "
            f"{data.parts[0].horizon}; give a horizon of at most as many"
        )
    try:
        _, processing, tokenizer = continuing(given, data, tokens=None)
    except InputError as error:
        raise InputError(str(error).replace("from:", "teacher:", 1)) from error
    model = given.model.float().eval()
    prompts = prompts_of({text: [text] for text in data.instructions}, processing, tokenizer, model.config)
    return model, Batches(data, np.arange(len(data)), processing, prompts, seed=0), processing


@torch.inference_mode()
def _answers(model: CogAct, batch: Batch) -> NDArray[np.float32]:
    """(B, horizon, A), normalised."""
    cognition = model.prefill(model.encode(batch.images), batch.prompts, batch.states)
    nothing = torch.zeros(len(cognition), *model.noise_shape)
    return model.head.sample(cognition, nothing, _STEPS, _GUIDANCE).numpy()
