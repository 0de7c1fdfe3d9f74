"""Words to ids for small models: a byte-level BPE, so no word is unknown, learned from the suite's instructions."""

from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from vla.api import InputError

PROMPT = "In: What action should the robot take to {instruction}?\nOut:"  # OpenVLA's and CogACT's
PAD, BOS, COGNITION = "<pad>", "<s>", "</s>"
_VOCABULARY = 768

_OBJECTS = (
    "spoon", "towel", "carrot", "plate", "green block", "yellow block", "eggplant", "yellow basket", "coke can",
    "pepsi can", "redbull can", "7up can", "sprite can", "fanta can", "blue plastic bottle", "apple", "orange",
    "sponge", "top drawer", "middle drawer", "bottom drawer", "drawer", "sink", "table", "basket", "cube", "cloth",
)  # fmt: skip
_PATTERNS = (
    "put the {0} on the {1}", "put {0} on {1}", "put {0} into {1}", "stack the {0} on the {1}", "pick {0}",
    "pick up the {0}", "move {0} near {1}", "open {0}", "close {0}", "place {0} into {1}", "grab the {0}",
    "lay the {0} onto the {1}", "set the {0} down on the {1}", "place the {0} on top of the {1}", "take the {0}",
    "push the {0} next to the {1}", "bring the {0} to the {1}", "pull the {0} open", "shut the {0}", "lift the {0}",
)  # fmt: skip


def build_tokenizer(sentences: Sequence[str] = ()) -> tokenizers.Tokenizer:
    """The tokenizer of the small models, the same for the same sentences.

    Args:
        sentences: further texts whose words it shall know.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[PAD, BOS, COGNITION],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    usual = [
        PROMPT.format(instruction=pattern.format(first, second))
        for pattern in _PATTERNS
        for first in _OBJECTS
        for second in _OBJECTS
        if first != second
    ]
    tokenizer.train_from_iterator([*usual, *sentences], trainer)
    return _taking_words_literally(tokenizer)


def load_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        InputError: if it is missing or damaged.
    """
    try:
        return _taking_words_literally(tokenizers.Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises nothing more specific
        raise InputError(f"cannot read the tokenizer {path}: {error}") from error


def prompt_ids(tokenizer: tokenizers.Tokenizer, text: str, longest: int) -> Tensor:
    """(1, words) int64.

    Raises:
        InputError: if the text has more than `longest` tokens, or half of a surrogate pair, which is no letter.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        where = f"character {error.start} of the prompt"
        raise InputError(f"an instruction must be text; {where} is {text[error.start]!a}, which is no letter") from None
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if len(ids) > longest:
        raise InputError(f"the prompt has {len(ids)} tokens, this model reads at most {longest}: {text!r}")
    return torch.tensor([ids], dtype=torch.long)  # said, because there may be no word to tell it


def _taking_words_literally(tokenizer: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """An instruction that spells out a special token gets its letters, not the token."""
    tokenizer.encode_special_tokens = True
    return tokenizer
