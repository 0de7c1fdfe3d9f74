"""A profile of a model that says its actions in words also says how often its language model ran."""

from pathlib import Path

from eval.profiler.profile import prepare
from eval.profiler.report import sheets
from tests.eval.profiles import LITTLE, settings
from tests.vla.small import PROCESSING, TOKENIZER
from tests.vla.word_clones import speaker
from vla.checkpoints import native


def test_passes_and_words_per_pass_are_listed(tmp_path: Path) -> None:
    native.save(tmp_path / "words", speaker(), PROCESSING, TOKENIZER, {})
    content = prepare(settings(tmp_path / "words", accel=["exact", "jacobi"]), ["x"], LITTLE).measure()
    exact, jacobi = (row["decoding"] for row in content["rows"])
    assert exact == {"passes": 12, "words_per_pass": 1, "acceptance_length": 1}
    assert jacobi["words_per_pass"] == 12 / jacobi["passes"] >= 1
    assert content["rows"][1]["difference"] == 0
    assert [line[0] for line in sheets(content["rows"])["Decoding"]] == ["recipe", "exact", "jacobi"]
