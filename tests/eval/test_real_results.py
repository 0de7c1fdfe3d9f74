"""A user's own results on a real robot."""

from pathlib import Path

import pytest

from eval.real_results import Trials, load
from vla.api import InputError

HEADER = "policy,task,successes,trials\n"
FULL = {("a", "spoon"): Trials("a", "spoon", 8, 24), ("b", "spoon"): Trials("b", "spoon", 12, 24)}


def file(folder: Path, text: str, name: str = "real.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("header", [HEADER, "\ufeff" + HEADER, "policy, task, successes, trials\n"])
def test_csv(tmp_path: Path, header: str) -> None:
    assert load(file(tmp_path, f"{header}a,spoon,8,24\nb,spoon, 12 ,24\n")) == FULL


def test_yaml(tmp_path: Path) -> None:
    text = (
        "- {policy: a, task: spoon, successes: 8, trials: 24}\n- {policy: b, task: spoon, successes: 12, trials: 24}\n"
    )
    assert load(file(tmp_path, text, "real.yml")) == FULL


def test_a_rate_is_a_share_of_trials() -> None:
    assert Trials("a", "spoon", 6, 24).rate == 0.25


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("real.csv", HEADER, "no results"),
        ("real.csv", "", "no results"),
        ("real.csv", "policy,task,rate\na,spoon,0.5\n", "line 2: needs exactly policy, task, successes, trials; got"),
        ("real.csv", HEADER + "a,spoon,8\n", "line 2: needs exactly"),
        ("real.csv", HEADER + "a,spoon,8,24,9\n", "line 2: needs exactly"),
        ("real.csv", HEADER + "a,spoon,8,24\na,spoon,9,24\n", "line 3: a on spoon is there twice"),
        ("real.csv", HEADER + "a,spoon,0.5,24\n", "line 2: successes must be a whole number of at least 0, got '0.5'"),
        ("real.csv", HEADER + "a,spoon,25,24\n", "line 2: successes=25 exceed trials=24"),
        ("real.csv", HEADER + "a,spoon,0,0\n", "trials must be a whole number of at least 1, got 0"),
        ("real.csv", HEADER + ",spoon,0,1\n", "policy must be a name"),
        ("real.csv", HEADER + 'a,"spoon\n', "not CSV"),
        ("real.yaml", "policy: a", "list of mappings"),
        ("real.yaml", "[{policy: a", "not YAML"),
        (
            "real.yaml",
            "- {policy: on, task: spoon, successes: 8, trials: 24}",
            "entry 1: policy must be a name, got True",
        ),
        ("real.yaml", "- {policy: a, task: spoon, successes: true, trials: 24}", "successes must be a whole number"),
        ("real.xlsx", "", "must be a .csv, .yaml or .yml file"),
    ],
)
def test_what_cannot_be_read_is_said_clearly(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        load(file(tmp_path, text, name))
    assert words in str(refusal.value)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_that_are_not_text_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        load(tmp_path / "real.csv")
    with pytest.raises(InputError, match=r"gone\.csv cannot be read: No such file"):
        load(tmp_path / "gone.csv")
