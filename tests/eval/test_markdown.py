"""Tables to paste into a paper."""

from eval.markdown import results_markdown, table
from eval.summary import results
from tests.eval.records import broken, record

META = {"version": "0.1.0", "command": "cadence-eval out=a"}


def cells(text: str) -> list[list[str]]:
    """The table's rows, without the rule."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [rows[0], *rows[2:]]


def test_a_table_s_first_column_is_text_and_the_others_are_figures() -> None:
    assert table(["Task", "n"], [["spoon", "24"]]) == "| Task | n |\n| --- | ---: |\n| spoon | 24 |\n"


def test_text_from_outside_cannot_break_a_table() -> None:
    assert table(["a|b"], [["c\nd"], ["e\\"]]).splitlines() == ["| a\\|b |", "| --- |", "| c d |", "| e\\\\ |"]


def test_every_task_has_a_row_and_their_mean_is_named() -> None:
    records = [record(0), record(1, success=False), broken(2), *(record(number, task="b") for number in range(4))]
    text = results_markdown(results(records, META))
    header, b, toy, mean = cells(text)
    assert header[:3] == ["Task", "Setting", "n"]
    assert b[0] == "b"
    assert toy[:4] == ["toy", "visual_matching", "2", "1/2 = 50.0% [9.5, 90.5]"]
    assert toy[-1] == "1"
    assert mean[0] == "**mean over 2 tasks**"
    assert mean[2] == "6"
    assert mean[3].startswith("**75.0% [")
    assert "success at the last step" in text
    assert "macro average" in text
    assert "`cadence-eval out=a`" in text


def test_one_task_needs_no_mean_and_no_scored_episode_no_rate() -> None:
    header, task = cells(results_markdown(results([broken(0)], META)))
    assert task == ["toy", "visual_matching", "0", "-", "-", "-", "1"]
    assert len(header) == len(task)


def test_variants_left_out_are_named() -> None:
    text = results_markdown(results([record(0), record(0, variant="camera_low")], META, {"camera_low"}))
    assert "toy: camera_low not averaged" in text
