"""`cadence-compare` as a user meets it."""

import fcntl
import json
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.compare.__main__ import main
from eval.compare.comparison import compare as compare_runs
from eval.compare.reality import agreement
from eval.compare.report import differences
from eval.compare.runs import Run, notes
from eval.compare.runs import read as read_run
from eval.compare.settings import with_runs
from eval.paired import Pairs, difference_interval, mcnemar_exact
from eval.real_results import Trials
from eval.results import RunFolder
from eval.statistics import wilson
from eval.summary import results
from tests.eval.records import broken, record
from vla.api import InputError

TASKS = ("widowx_carrot_on_plate", "widowx_spoon_on_towel")
IDENTITY = {"policy": "served", "setting": "visual_matching", "scene": "official", "starts": "grid", "seed": 0}
META = {"version": "0.1.0", "command": "", "gl_renderer": "llvmpipe", "packages": {"mujoco": "3.3"}, "git": ""}
LEFT_OUT = frozenset({"camera_low"})
REAL = "policy,task,successes,trials\n"

Compare = Callable[..., int]


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compare:
    """Runs the command in this process and in an own folder; returns its exit status."""

    def command(*arguments: str, folder: Path = tmp_path) -> int:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["cadence-compare", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return command


def run(
    folder: Path,
    solved: Callable[[int], bool],
    tasks: Sequence[str] = TASKS,
    variants: Sequence[str] = ("base",),
    n: int = 24,
    identity: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A finished run that solves the starts for which `solved` says so."""
    with RunFolder(folder) as out:
        out.sign({**IDENTITY, **(identity or {})})
    records = [
        record(number, solved(number), task=task, variant=variant, **changes)
        for task, variant, number in product(tasks, variants, range(n))
    ]
    out.episodes.write_bytes(b"".join(item.line() for item in records))  # at once: `add` waits for the disk each time
    report(folder, records)
    return folder


def report(folder: Path, records: list[Any]) -> None:
    (folder / "results.json").write_text(json.dumps(results(records, META, LEFT_OUT)))


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "compare.json").read_text())


def read_runs(folder: Path) -> list[Run]:
    """The runs a and b of the folder."""
    return [read_run(folder / name, name) for name in "ab"]


def compared(folder: Path, measure: str = "last step") -> dict[str, Any]:
    """What the command computes for the runs a and b."""
    return compare_runs(read_runs(folder), measure, margin=0.05)


def third(number: int) -> bool:
    return number % 3 == 0


def most(number: int) -> bool:
    return number % 3 == 0 or number % 2 == 0


def once() -> Pairs:
    """What `third` and `most` do, every start run once."""
    baseline, run = (np.array([solved(number) for number in range(24)]) for solved in (third, most))
    return Pairs(baseline, run, np.arange(24))


def test_two_runs(compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "a", third)
    run(tmp_path / "b", most, identity={"recipe": "fast"})
    assert compare("a/", "b/", "out=o") == 0
    content = read(tmp_path / "o")
    (comparison,) = content["comparisons"]
    expected = once()
    for task in comparison["tasks"]:
        assert (task["n"], task["discordant"]) == (24, {"run_only": 8, "baseline_only": 0})
        assert task["difference"] == pytest.approx(8 / 24)
        assert task["ci95"] == pytest.approx(difference_interval(expected))
        assert task["p_value"] == pytest.approx(mcnemar_exact(expected.signs)) == pytest.approx(task["p_holm"] / 2)
        assert task["non_inferiority"]["non_inferior"]
    assert [task["ci95"] for task in content["runs"][1]["tasks"]] == [list(wilson(16, 24))] * 2
    overall = comparison["overall"]
    assert overall["difference"] == pytest.approx(8 / 24)
    assert overall["ci95"][0] > comparison["tasks"][0]["ci95"][0]  # two tasks know more than one
    assert overall["sequential"]["stopped_at"] == 22  # with starts 2, 4, 8 and 10 of both tasks, in turns
    assert content["meta"]["command"] == "cadence-compare a/ b/ out=o"
    shown = capsys.readouterr().out
    assert "8/24 = 33.3%" in shown
    assert "macro average" in (tmp_path / "o" / "compare.md").read_text()
    assert (tmp_path / "o" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "o" / "compare.svg").read_text()


def test_three_runs_are_one_family_of_tests(compare: Compare, tmp_path: Path) -> None:
    for name, solved in (("a", third), ("b", most), ("c", third)):
        run(tmp_path / name, solved)
    assert compare("runs=[a,b,c]", "names=[slow,fast,same]", "out=o") == 0
    fast, same = read(tmp_path / "o")["comparisons"]
    assert (fast["baseline"], fast["run"], same["run"]) == ("slow", "fast", "same")
    assert fast["tasks"][0]["p_holm"] == pytest.approx(4 * fast["tasks"][0]["p_value"])
    assert fast["overall"]["p_holm"] == pytest.approx(2 * fast["overall"]["p_value"])
    assert same["tasks"][0]["p_value"] == same["overall"]["p_value"] == 1.0
    assert same["overall"]["ci95_bootstrap"] == [0.0, 0.0]  # of runs that never differ
    assert same["overall"]["ci95"] == same["overall"]["ci95_score"]  # so it does not decide alone
    assert not same["overall"]["non_inferiority"]["non_inferior"]
    text = (tmp_path / "o" / "compare.md").read_text()
    assert "### same minus slow" in text


@pytest.mark.parametrize(("tasks", "n"), [(TASKS[:1], 2), (TASKS, 24)])
def test_an_average_has_an_interval_with_a_width_where_nothing_varied(
    tmp_path: Path, tasks: Sequence[str], n: int
) -> None:
    run(tmp_path / "a", lambda number: False, tasks, n=n)
    run(tmp_path / "b", lambda number: True, tasks, n=n)
    content = compared(tmp_path)
    overall = content["comparisons"][0]["overall"]
    for mean in (content["runs"][1]["mean"], overall):
        assert mean["ci95_bootstrap"] == [1.0, 1.0]
        assert mean["ci95"][0] < 0.95
        assert mean["ci95"][1] == 1.0
    assert (overall["ci95"][0] > 0) == (n == 24)  # two starts show nothing


def test_starts_run_in_variants_are_counted_once_and_variants_left_out_not_at_all(tmp_path: Path) -> None:
    variants = ("base", "dark", *LEFT_OUT)
    run(tmp_path / "a", third, variants=variants)
    run(tmp_path / "b", most, variants=variants)
    content = compared(tmp_path)
    task = content["comparisons"][0]["tasks"][0]
    assert (task["n"], task["starts"], task["starts_won"]) == (48, 24, 8)
    assert task["discordant"]["run_only"] == 16
    assert task["ci95"] == pytest.approx(difference_interval(once()))  # the variant changed nothing
    assert "48 (24 starts)" in differences(content["comparisons"][0], content).rows[0]


def test_another_measure(tmp_path: Path) -> None:
    for name in "ab":
        run(tmp_path / name, third, success_strict=name == "b")
    content = compared(tmp_path, measure="strict")
    assert content["convention"] == "strict success at the last step"
    assert content["comparisons"][0]["overall"]["difference"] == 1.0


def test_agreement_with_a_robot(compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, solved in (("a", third), ("b", most), ("c", lambda number: True)):
        run(tmp_path / name, solved)
    rows = f"a,{TASKS[1]},12,24\nb,{TASKS[1]},6,24\nc,{TASKS[1]},24,24\nd,fold_a_shirt,1,2\n"
    (tmp_path / "real.csv").write_text(REAL + rows)
    assert compare("a", "b", "c", "real=real.csv", "out=o") == 0
    real = read(tmp_path / "o")["real"]
    (task,) = real["tasks"]
    assert task["mmrv"] == pytest.approx((0.25 + 0.25 + 0) / 3)
    assert task["pearson"] == pytest.approx(np.corrcoef([1 / 3, 2 / 3, 1], [0.5, 0.25, 1])[0, 1])
    assert real["left_out"] == [TASKS[0]]
    assert TASKS[0] in capsys.readouterr().out.rpartition("not among the real results: ")[2]
    assert real["convention"] in (tmp_path / "o" / "compare.md").read_text()


def test_rates_that_are_all_equal_have_no_correlation(tmp_path: Path) -> None:
    for name in "ab":
        run(tmp_path / name, third)
    trials = {(name, TASKS[0]): Trials(name, TASKS[0], number, 2) for number, name in enumerate("ab")}
    assert agreement(compared(tmp_path)["runs"], trials)["tasks"][0]["pearson"] is None


def test_another_machine_is_noted(tmp_path: Path) -> None:
    run(tmp_path / "a", third)
    edited("results.json", lambda text: text.replace("llvmpipe", "NVIDIA"))(tmp_path / "b")
    assert notes(read_runs(tmp_path)) == ["the runs differ in OpenGL renderer: llvmpipe, NVIDIA"]


def broken_run(folder: Path) -> None:
    with RunFolder(run(folder, third)) as out:
        out.add(broken(3, task=TASKS[0]))
        report(folder, list(out.records.values()))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs and files that bad input names."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, n in (("a", 24), ("b", 24), ("one", 1), ("two", 1)):
        run(folder / name, third, n=n)
    (folder / "a.csv").write_text(REAL + f"a,{TASKS[0]},1,2\n")
    (folder / "other.csv").write_text(REAL + "a,fold_a_shirt,1,2\nb,fold_a_shirt,1,2\n")
    (folder / "some.csv").write_text(REAL + f"a,{TASKS[0]},1,2\nb,{TASKS[1]},1,2\n")
    (folder / "file").touch()
    return folder


def edited(name: str, edit: Callable[[str], str]) -> Callable[[Path], None]:
    """Makes a run whose file was changed."""

    def make(folder: Path) -> None:
        path = run(folder, third) / name
        path.write_text(edit(path.read_text()))

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda b: None, "there is no run b"),
        (lambda b: b.mkdir(), "b is not the folder of a run"),
        (lambda b: run(b, third, identity={"seed": 1}), "share the starts of a: seed=1 instead of seed=0"),
        (lambda b: run(b, third, identity={"scene": "mixed"}), "scene=mixed instead of scene=official"),
        (lambda b: run(b, third, identity={"starts": "random"}), "starts=random instead of starts=grid"),
        (lambda b: run(b, third, TASKS[:1]), f"its tasks are {TASKS[0]}/visual_matching instead of"),
        (lambda b: run(b, third, setting="variant_aggregation"), "its tasks are"),
        (lambda b: run(b, third, variants=["dark"]), "it lacks 48 episode(s), the first is"),
        (lambda b: run(b, third, n=20), f"it lacks 8 episode(s), the first is {TASKS[0]}/visual_matching/base/20"),
        (lambda b: run(b, third, n=30), "it has 12 more episode(s), the first is"),
        (lambda b: run(b, third, seed=7), "48 episode(s) have another seed, the first is"),
        (broken_run, "b is unfinished: 1 episode(s) ended in error or timeout"),
        (lambda b: (run(b, third) / "results.json").unlink(), "b is unfinished: it has no results.json"),
        (edited("results.json", lambda text: text[:-9]), "results.json cannot be read"),
        (edited("results.json", lambda text: "[]"), "must hold an object"),
        (edited("results.json", lambda text: text.replace("not_averaged", "x")), "is of another version"),
        (edited("episodes.jsonl", lambda text: text[:-9]), "b is unfinished: its last episode was cut off"),
        (edited("episodes.jsonl", lambda text: text[: text.index("\n") + 1]), "not of the episodes beside it"),
        (edited("episodes.jsonl", lambda text: ""), "b holds no episodes"),
        (edited("episodes.jsonl", lambda text: "{}\n" + text), "episodes.jsonl, line 1: an episode needs exactly"),
        (edited("episodes.jsonl", lambda text: text + text), "line 49: "),
        (edited("run.json", lambda text: text.replace('"format": 1', '"format": 0')), "another results format than 1"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Any], words: str
) -> None:
    run(tmp_path / "a", third)
    make(tmp_path / "b")
    assert compare("a", "b", "out=o") == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_run_that_is_being_written_is_refused(
    compare: Compare, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        run(tmp_path / name, third)
    with RunFolder(tmp_path / "b"):
        assert compare("a", "b", "out=o") == 2
    assert "b is unfinished: an evaluation is writing to it" in capsys.readouterr().err
    with (tmp_path / "b" / ".lock").open() as lock:  # the comparison holds nothing
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "at least two runs"),
        (("a",), "at least two runs"),
        (("a", "a/"), "given twice"),
        (("a", "runs=[b]"), "not both"),
        (("a", "b", "margin=0"), "margin"),
        (("a", "b", "margin=x"), "margin"),
        (("a", "b", "measure=best"), "measure must be one of last_step, any_step, strict"),
        (("a", "b", "names=[x]"), "names"),
        (("a", "b", "names=[x,x]"), "names"),
        (("a", "b", "nonsense=1"), "nonsense"),
        (("a", "b", "real=gone.csv"), "gone.csv cannot be read"),
        (("a", "b", "real=[1]"), "real must name a file"),
        (("a", "b", "real=a.csv"), "no real results of b, only of a"),
        (("a", "b", "real=other.csv"), "the real results fold_a_shirt"),
        (("a", "b", "real=some.csv"), f"no real results of b on {TASKS[0]}"),
        (("a", "b", "out=file"), "out=file cannot be written"),
        (("a", "one"), "it lacks"),
        (("one", "two"), "at least 2 starts"),
    ],
)
def test_bad_input_is_one_clear_message(
    compare: Compare, prepared: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert compare(*arguments, folder=prepared) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1


def test_runs_keep_their_names_whatever_these_are(compare: Compare, tmp_path: Path) -> None:
    names = ["it's, [1]", "lr=0.1", r"_x $\y$"]
    for name in names:
        run(tmp_path / name, third, TASKS[:1])
    assert compare(*names, "out=o") == 0
    assert [run["name"] for run in read(tmp_path / "o")["runs"]] == names


def test_runs_of_the_same_name_are_told_apart(compare: Compare, tmp_path: Path) -> None:
    run(tmp_path / "x" / "run", third, TASKS[:1])
    run(tmp_path / "y" / "run", most, TASKS[:1])
    assert compare("x/run", "y/run", "out=o") == 0
    assert [run["name"] for run in read(tmp_path / "o")["runs"]] == ["x/run", "y/run"]


def test_words_are_runs_and_keys_stay_keys() -> None:
    assert with_runs(["a/", "margin=0.1", "--help", "b"]) == ["margin=0.1", "--help", "runs=['a/','b']"]
    assert with_runs(["runs=[a,b]"]) == ["runs=[a,b]"]
    with pytest.raises(InputError, match="not both"):
        with_runs(["a", "runs=[b]"])
