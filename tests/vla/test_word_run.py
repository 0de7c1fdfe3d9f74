"""Runs that teach a model to say actions in words: from nothing, from a diffusion model, from a model of words."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vla.small import observation
from tests.vla.test_training_run import options as options
from vla.api import InputError
from vla.checkpoints import native
from vla.models.openvla import OpenVla
from vla.policy import load_policy
from vla.training import run


def taught(options: dict[str, Any], objective: str, **changes: Any) -> run.Run:
    tokens = options["tokens"] | {"horizon": 4, "bins": 32}
    how = {"objective": objective, "tokens": tokens, "blocks": options["blocks"] | {"actions": 4}}
    ready = run.prepare(options | how | changes)
    ready.trainer.run(lambda _: None, lambda _: ready.export())
    return ready


@pytest.mark.parametrize("objective", ["autoregressive", "block_diffusion"])
def test_a_new_speaker_is_shipped_and_acts(options: dict[str, Any], objective: str) -> None:
    ready = taught(options, objective)
    shipped = native.load(ready.checkpoint)
    assert isinstance(shipped.model, OpenVla)
    config = shipped.model.config
    assert (config.horizon, config.bins, config.words) == (4, 32, 12)
    assert config.vocabulary == shipped.tokenizer.get_vocab_size() + 32 + 1
    assert config.mask_word == config.vocabulary - 1
    chunk = load_policy(checkpoint=ready.checkpoint, robot="robot").infer(observation())
    assert chunk.actions.shape == (4, 3)
    assert np.isfinite(chunk.actions).all()


def test_it_begins_with_the_trunk_of_a_diffusion_model(options: dict[str, Any], tmp_path: Path) -> None:
    given = run.prepare(options)
    given.export()
    changed = {"from": str(given.checkpoint), "out": str(tmp_path / "words"), "model": {}}
    ready = run.prepare(options | changed | {"objective": "block_diffusion"})
    begun, known = ready.trainer.average.state_dict(), given.trainer.average.state_dict()
    assert torch.equal(begun["vision.vit.embeddings.cls_token"], known["vision.vit.embeddings.cls_token"])
    assert ready.processing == given.processing
    assert ready.trainer.average.config.horizon == options["tokens"]["horizon"]  # type: ignore[union-attr]


def test_autoregressive_words_are_converted_to_blocks(options: dict[str, Any], tmp_path: Path) -> None:
    given = taught(options, "autoregressive")
    changed = {"from": str(given.checkpoint), "out": str(tmp_path / "blocks"), "model": {}}
    ready = taught(options, "block_diffusion", **changed)
    assert ready.trainer.average.config == given.trainer.average.config


def test_a_speaker_cannot_be_taught_to_denoise(options: dict[str, Any], tmp_path: Path) -> None:
    given = taught(options, "autoregressive")
    with pytest.raises(InputError, match="only a model of the family cogact can denoise chunks, this is openvla"):
        run.prepare(options | {"from": str(given.checkpoint), "out": str(tmp_path / "again")})


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["objective"], "tokens", "objective must be one of diffusion, autoregressive, block_diffusion"),
        (["tokens"], None, "tokens"),
        (["tokens", "bins"], 1, "tokens.bins"),
        (["tokens", "horizon"], 0, "tokens.horizon"),
        (["tokens", "smoothing"], -1, "tokens.smoothing"),
        (["tokens", "rounding"], 0, "tokens.rounding"),
        (["tokens", "colour"], 1, "tokens has the keys"),
        (["blocks", "actions"], 0, "blocks.actions"),
        (["blocks", "actions"], 9, "blocks.actions must be from 1 to 8"),
        (["blocks", "blind"], 1, "blocks.blind"),
        (["blocks", "colour"], 1, "blocks has the keys"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], path: list[Any], value: Any, named: str) -> None:
    wrong = copy.deepcopy(options | {"objective": "block_diffusion"})
    inner: Any = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(InputError, match=named):
        run.prepare(wrong)


@pytest.mark.parametrize("group", ["tokens", "blocks"])
def test_another_way_of_saying_does_not_continue_a_run(options: dict[str, Any], group: str) -> None:
    run.prepare(options | {"objective": "block_diffusion"}).trainer.save()
    other = {"tokens": {"smoothing": 1.0}, "blocks": {"drafts": 0.5}}[group]
    with pytest.raises(InputError, match=rf"other {group}\.{next(iter(other))};"):
        run.prepare(options | {"objective": "block_diffusion", group: options[group] | other})
