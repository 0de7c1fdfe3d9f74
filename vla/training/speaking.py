"""Models that say actions in words: new ones, and those that go on from a trunk that learned something else."""

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from vla.api import InputError
from vla.models.cogact import CogAct
from vla.models.openvla import OpenVla, OpenVlaConfig
from vla.models.trunk import Trunk, TrunkConfig
from vla.training.checks import require_number, require_whole

_OWN = ("vocabulary", "language_head", "prompt_suffix")  # of a trunk's config: decided here
_FREQUENCIES = 8
_ROW_SCALE = 0.02  # of a word's embedding at the beginning, as transformers has it


@dataclass(frozen=True)
class Tokens:
    """How actions become words.

    Attributes:
        horizon: actions in a chunk.
        bins: words for a number.
        smoothing: [bins] how far right answers spread in the loss.
        rounding: [bins] right answers are rounded to multiples of it, counted from the middle bin; 1 keeps them.

    Raises:
        InputError: on a value outside its range.
    """

    horizon: int
    bins: int
    smoothing: float
    rounding: int = 1

    def __post_init__(self) -> None:
        require_whole("tokens.horizon", self.horizon, 1)
        require_whole("tokens.bins", self.bins, 2)
        require_number("tokens.smoothing", self.smoothing)
        require_whole("tokens.rounding", self.rounding, 1)


def config_for(trunk: dict[str, Any], words: int, suffix: tuple[int, ...], tokens: Tokens) -> OpenVlaConfig:
    """The config of a model with rows of its own for action words and the mask word, after those of the tokenizer.

    Args:
        trunk: values of a trunk's config, and `action_dim`.
        words: of the tokenizer.
        suffix: ids that end every prompt.
        tokens: how actions become words.

    Raises:
        InputError: naming the value that is missing, unknown or wrong.
    """
    own = {
        "vocabulary": words + tokens.bins + 1,
        "prompt_suffix": suffix,
        "bins": tokens.bins,
        "action_words": words + tokens.bins,
        "mask_word": words + tokens.bins,
        "text_words": words,
        "horizon": tokens.horizon,
    }
    return OpenVlaConfig.from_dict(trunk | own)


def made(config: OpenVlaConfig) -> OpenVla:
    """A new model; neighbouring bins begin alike."""
    model = OpenVla(config)
    _order_action_words(model)
    return model


def speaking(model: Trunk, tokens: Tokens) -> OpenVla:
    """A model that says actions and begins with what another knows.

    Args:
        model: one that speaks already goes on as it is; of any other the trunk is taken over.
        tokens: how actions become words, if it does not speak yet.
    """
    if isinstance(model, OpenVla):
        return model if model.config.mask_word is not None else _with_mask(model)
    config = model.config
    trunk = {f.name: getattr(config, f.name) for f in fields(TrunkConfig) if f.name not in _OWN}
    trunk["action_dim"] = config.action_dim  # type: ignore[attr-defined]
    begun = made(config_for(trunk, config.vocabulary, config.ending, tokens))
    known, rows = model.state_dict(), begun.state_dict()
    with torch.no_grad():
        for name, tensor in rows.items():
            if name.startswith("language.lm_head"):
                continue
            tensor[: len(known[name])] = known[name]  # the embedding table has more rows now
    return begun


def check_can_speak(model: Any) -> None:
    """Refuse models whose trunk cannot be taken over.

    Raises:
        InputError: saying which can.
    """
    if not isinstance(model, OpenVla | CogAct):
        raise InputError("from: only models of the families openvla and cogact can learn to say actions in words")


def _with_mask(model: OpenVla) -> OpenVla:
    """The same model with the last row of its table, which stands for no word, as the mask word.

    Raises:
        InputError: if there is no such row.
    """
    config = model.config
    if config.vocabulary - 1 <= max(config.action_words, config.pad_id):
        raise InputError(
            f"from: all {config.vocabulary} rows of the vocabulary are in use, none is left to be the mask"
        )
    model.config = replace(config, mask_word=config.vocabulary - 1)
    return model


@torch.no_grad()
def _order_action_words(model: OpenVla) -> None:
    first, last = model.config.first_action_word, model.config.action_words
    assert model.language.lm_head is not None
    for table in (model.language.llama.get_input_embeddings().weight, model.language.lm_head.weight):
        assert isinstance(table, Tensor)
        table[first:last] = _smooth_rows(last - first, table.shape[1])


def _smooth_rows(count: int, width: int) -> Tensor:
    """(count, width) rows that change slowly from one to the next: waves of falling height in random directions."""
    place = torch.linspace(-1, 1, count)[:, None]
    frequency = torch.arange(1, _FREQUENCIES + 1) * torch.pi / 2
    waves = torch.cat([(place * frequency).sin(), (place * frequency).cos()], dim=1)  # (count, 2 * frequencies)
    height = (1 / frequency).repeat(2)
    rows = (waves * height) @ torch.randn(2 * _FREQUENCIES, width)
    return rows * (_ROW_SCALE / rows.std()) + _ROW_SCALE / 2 * torch.randn(count, width)
