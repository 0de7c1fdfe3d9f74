"""Laws of the tokenizer: the same every time, no word unknown, no special token from the outside."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.vla.small import TOKENIZER
from vla.api import InputError
from vla.tokenizer import BOS, COGNITION, PAD, PROMPT, build_tokenizer, load_tokenizer, prompt_ids

SUITE = (
    "put the spoon on the towel",
    "put carrot on plate",
    "stack the green block on the yellow block",
    "put eggplant into yellow basket",
    "pick coke can",
    "move blue plastic bottle near pepsi can",
    "open middle drawer",
    "place apple into top drawer",
)


def test_building_twice_gives_the_same_tokenizer() -> None:
    assert build_tokenizer().to_str() == TOKENIZER.to_str()


def test_a_saved_tokenizer_reads_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    text = PROMPT.format(instruction="grab the <pad> zebra")
    assert prompt_ids(loaded, text, 64).tolist() == prompt_ids(TOKENIZER, text, 64).tolist()


@pytest.mark.parametrize("instruction", SUITE)
def test_a_prompt_of_the_suite_takes_one_id_for_each_word(instruction: str) -> None:
    assert prompt_ids(TOKENIZER, PROMPT.format(instruction=instruction), 32).shape[1] <= 21


@given(st.text(max_size=40))
def test_every_text_can_be_read_back(text: str) -> None:
    ids = prompt_ids(TOKENIZER, text, 1000)[0].tolist()
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("token", [PAD, BOS, COGNITION])
def test_an_instruction_cannot_say_a_special_token(token: str) -> None:
    assert TOKENIZER.token_to_id(token) not in prompt_ids(TOKENIZER, f"put {token} on{token}", 64)[0].tolist()


def test_a_prompt_that_is_too_long_is_refused_with_both_lengths() -> None:
    with pytest.raises(InputError, match=r"5 tokens.*at most 3"):
        prompt_ids(TOKENIZER, "put the spoon on", 3)


def test_no_text_is_no_word_and_still_a_prompt() -> None:
    ids = prompt_ids(TOKENIZER, "", 3)
    assert (ids.shape, ids.dtype) == ((1, 0), torch.long)


@pytest.mark.parametrize("half", [0xD83D, 0xDE00])
def test_half_of_a_surrogate_pair_is_refused(half: int) -> None:
    with pytest.raises(InputError, match=r"must be text; character 4 of the prompt is '\\ud.{3}', which is no letter"):
        prompt_ids(TOKENIZER, f"lift{chr(half)} it", 64)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")
